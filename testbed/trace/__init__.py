"""`testbed trace`: one real packet, seen at every interface that it crosses, with why it went there.

A probe that can be recognised (`probe`) is caught by a filter (`recognise`) at sockets in every namespace (`watch`),
brought into the order in which it happened (`order`), told as a story (`story`) with reasons asked of the kernels and
agents (`reasons`), and, when it got lost, looked after (`verdict`).
"""
