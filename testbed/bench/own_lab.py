"""The lab that a bench run makes for itself. It cannot outlive the run, however that ends."""

import contextlib
import signal
from collections.abc import Iterator

from testbed.cluster.spec import Cluster, read_cluster
from testbed.command.up import as_interrupt, check_environment, hosts_of
from testbed.control.client import RUN_ROOT, LabRecord
from testbed.control.options import LabOptions
from testbed.errors import TestbedError
from testbed.host.lab_directories import prepare, starting
from testbed.host.launch import Launched, launch
from testbed.host.removal import remove_leftovers

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
    """Two nodes with a pod each, ready. Raises TestbedError when they do not get so.

    The lab hangs on this process: `keep` is never called, so even SIGKILL ends it.
    """
    launched = launch_own(name, read_cluster(CLUSTER.encode(), "bench"))
    try:
        last = list(launched.messages())[-1:]
        if not last or "ready" not in last[0]:
            why = last[0].get("failed") if last else None
            raise TestbedError(f"bench: its lab did not get ready: {why or 'it ended while it started'}")
        yield launched.record
    finally:
        launched.abandon()


def launch_own(name: str, cluster: Cluster) -> Launched:
    """A lab that starts and hangs on this process. Raises TestbedError when the machine is not fit for it."""
    with starting(RUN_ROOT, name):
        remove_leftovers()
        check_environment(cluster, RUN_ROOT)
        rundir = prepare(RUN_ROOT, LabOptions(name=name, cluster_file="bench"), cluster.text, hosts_of(cluster))
        signal.signal(signal.SIGTERM, as_interrupt)
        return launch(name, rundir)
