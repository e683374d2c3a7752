"""The runtime's side of the Container Network Interface: pods' networks made by plugins (CNI SPEC.md 0.3.0 to 1.1.0).

conflist   a network configuration, and the request for one plugin made of it. Pure
answer     what a plugin printed, as a result or an error. Pure
call       runs one plugin inside a node
runtime    the operations on one node: ADD, CHECK, DEL, GC, STATUS and VERSION through the chain
"""
