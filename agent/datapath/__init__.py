"""How the udp backend carries packets: decide (packet, forwarder, forwarding_table), move (tun, pumps), count.

Imported by backends; testbed parses headers with `packet`. Never waits for etcd.
"""
