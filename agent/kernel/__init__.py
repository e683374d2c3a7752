"""This machine's kernel: links, addresses, routes, neighbours, rules and sockets; read, changed, watched, journalled.

Imported by backends, node and testbed; by datapath for the holder of a port. Knows neither leases nor etcd.
"""
