"""The lab that a bench run makes for itself. It cannot outlive the run, however that ends."""

import contextlib
from collections.abc import Iterator

from testbed.cluster.spec import Cluster, read_cluster
from testbed.control.client import RUN_ROOT, LabRecord
from testbed.control.options import LabOptions
from testbed.errors import TestbedError
from testbed.host.interruption import Interruption
from testbed.host.lab_directories import starting
from testbed.host.launch import Launched
from testbed.host.removal import remove_leftovers
from testbed.host.up import check_environment, launch_cluster

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: bench}
network:  {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes:
  node1: {}
  node2: {}
---
apiVersion: v1
kind: Pod
metadata: {name: pod1}
spec:
  nodeName: node1
  containers: [{name: shell, image: shell}]
---
apiVersion: v1
kind: Pod
metadata: {name: pod2}
spec:
  nodeName: node2
  containers: [{name: shell, image: shell}]
"""


@contextlib.contextmanager
def own_lab(name: str) -> Iterator[LabRecord]:
    """Start two nodes with a pod each, and wait until they are ready.

    Raises TestbedError. The lab depends on this process: `keep` is never called, so even SIGKILL ends it.
    """
    launched = launch_own(name, read_cluster(CLUSTER.encode(), "bench"))
    try:
        last = list(launched.messages())[-1:]
        if not last or "ready" not in last[0]:
            why = last[0].get("failed") if last else None
            raise TestbedError(f"bench: its lab did not become ready: {why or 'it ended while it started'}")
        yield launched.record
    finally:
        launched.abandon()


def launch_own(name: str, cluster: Cluster) -> Launched:
    """Start a lab that ends with this process. Raises TestbedError if the machine does not meet the requirements."""
    with starting(RUN_ROOT, name):
        remove_leftovers()
        check_environment(cluster, RUN_ROOT)
        interruption = Interruption()
        launched = launch_cluster(RUN_ROOT, cluster, LabOptions(name=name, cluster_file="bench"), interruption)
        try:
            interruption.release()
        except KeyboardInterrupt:
            launched.abandon()
            raise
        return launched
