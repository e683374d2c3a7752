"""The registry of leases in etcd: the only user of etcd3 and gRPC, whose errors end here.

Imported by leases, by assembly and agent, which open it, and by node for its warnings.
"""

import os

# grpc reads both as it is imported.
# Its C core writes each failed handshake to stderr; we report the same through the exception.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# By default it starts its threads again in each forked child; the descriptors that they poll are closed there before
# the child runs its program, and it aborts. No child of ours uses its parent's connections.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
