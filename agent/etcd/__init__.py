"""The registry of leases in etcd: the only user of etcd3 and gRPC, whose errors end here.

Imported by leases, by assembly and agent, which open it, and by node for its warnings.
"""
