"""The registry of leases in etcd: the one user of etcd3 and gRPC. Errors of theirs end here.

Imported by leases, by assembly and agent, which open it, and by node for its warnings.
"""
