"""Pings from every pod to every other, while pods come and go.

A terminating pod takes no part. If a pod's termination begins meanwhile, its pairs without a reply are reported as
skipped, not lost.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from ipaddress import ip_address

from agent.kernel.values import Family, IPAddress
from testbed.lab.ping import PAYLOAD, PairResult, PingSender, PingTarget, all_pairs, ping_pairs
from testbed.lab.pods import Pods
from testbed.pods.pod import Pod


def ping_every_pair(
    known: Pods,
    family: Family = 4,
    count: int = 1,
    payload: bytes = PAYLOAD,
    takes_part: Callable[[Pod], bool] = lambda _: True,
) -> list[PairResult]:
    """Ping from every pod to every other, with an address of the family, `count` times."""
    pods = [pod for pod in known if pod.pause_pid is not None and not pod.leaves and takes_part(pod)]
    addressed = [(pod, address) for pod in pods if (address := _address(pod, family)) is not None]
    senders = [PingSender(pod.name, pod.pause_pid or 0) for pod, _ in addressed]
    targets = [PingTarget(pod.name, address) for pod, address in addressed]
    results = ping_pairs(all_pairs(senders, targets), count, payload=payload)
    return skip(results, {pod.name for pod in pods if pod.leaves or known.get(pod.key) is not pod})


def skip(results: Iterable[PairResult], gone: Collection[str]) -> list[PairResult]:
    """Return the results; a pair with a loss and a pod among `gone` is skipped. Pure."""

    def judged(result: PairResult) -> PairResult:
        ends = [end for end in (result.source, result.destination) if end in gone]
        if result.received == result.sent or not ends:
            return result
        return replace(result, skipped=f"terminated meanwhile: {', '.join(ends)}")

    return [judged(result) for result in results]


def _address(pod: Pod, family: Family) -> IPAddress | None:
    own = pod.address if family == 4 else pod.ipv6_address
    return None if own is None else ip_address(own)
