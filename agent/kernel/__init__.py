"""This machine's kernel: links, addresses, routes, neighbours, rules and sockets; read, changed, watched, journalled.

Imported by backends, node and testbed; by datapath for the holder of a port. Depends on neither leases nor etcd.
"""
