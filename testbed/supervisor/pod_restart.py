"""`restart pod`: namespaces, network and containers are made again."""

import contextlib
from collections.abc import Sequence
from functools import partial

from testbed.cluster.object_key import key_of
from testbed.cni.runtime import CniFailed
from testbed.errors import TestbedError
from testbed.lab.pods import Pods
from testbed.lab.waiting import wait_for
from testbed.pods.pod import Pod
from testbed.spelling import listed

LIMIT_S = 60.0


def restart_pods(pods: Pods, names: Sequence[str], namespace: str) -> list[str]:
    """Restart the named pods, and wait until they are ready; return a line for each.

    Raises TestbedError with the reason of the first that does not get its network, or is not ready in time.
    """
    found = [pods.get(key_of(name, namespace)) for name in names]
    for name, pod in zip(names, found, strict=True):
        if pod is None:
            raise TestbedError(f"no pod named {name} (there are: {listed(pods.names(), name)})")
    begun = [(pod, pod.sandbox.attempts) for pod in found if pod is not None]
    for pod, _ in begun:
        # Its reason is the pod's, below.
        with contextlib.suppress(CniFailed):
            pod.rebuild()
    for pod, attempts in begun:
        why = wait_for(partial(_missing, pod, attempts), LIMIT_S)
        if why or pod.sandbox.failure:
            raise TestbedError(f"pod {pod.name}: {pod.sandbox.failure or why}")
    return [f"pod {pod.name} restarted, address {pod.address}" for pod, _ in begun]


def _missing(pod: Pod, attempts: int) -> str:
    """Return what the pod misses since `attempts` ended; nothing once another attempt has failed."""
    if pod.sandbox.attempts == attempts:
        return "not restarted yet"
    status = pod.status()
    if pod.sandbox.failure or status.ready or status.phase == "Succeeded":
        return ""
    return status.why_not_ready
