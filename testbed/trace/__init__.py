"""`testbed trace`: one real packet, seen at every interface that it crosses, with the reason for each hop.

A probe that can be recognised (`probe`) is caught by a filter (`recognise`) at sockets in every namespace (`watch`),
put in chronological order (`order`), turned into hops (`timeline`) with reasons from kernels and agents (`reasons`),
and, if it was lost, investigated (`suspects`).
"""
