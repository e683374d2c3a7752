"""Counters of agents and kernels before and after a probe: an increase may explain where it was lost."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.capture.map import Map
from testbed.lab.node import AgentState
from testbed.lab.nodes import Nodes

ASKERS = 8
TELLING = {
    "Ip": (
        "InHdrErrors",
        "InAddrErrors",
        "InUnknownProtos",
        "InDiscards",
        "OutDiscards",
        "OutNoRoutes",
        "ReasmFails",
        "FragFails",
    ),
    "IpExt": ("InNoRoutes", "InTruncatedPkts", "InCsumErrors"),
    "TcpExt": ("IPReversePathFilter",),
    "Ip6": (
        "InHdrErrors",
        "InTooBigErrors",
        "InNoRoutes",
        "InAddrErrors",
        "InUnknownProtos",
        "InDiscards",
        "OutDiscards",
        "OutNoRoutes",
        "ReasmFails",
        "FragFails",
    ),
    "Udp6": ("NoPorts", "InErrors", "RcvbufErrors", "SndbufErrors", "InCsumErrors"),
    "Udp": ("NoPorts", "InErrors", "RcvbufErrors", "SndbufErrors", "InCsumErrors"),
}
"""Counters that count lost packets, by group (Documentation/networking/snmp_counter.rst)."""
DEVICE_DROPS = {2: "rx errors", 3: "rx dropped", 10: "tx errors", 11: "tx dropped"}
"""Columns of /proc/net/dev after the device's name, counted from 0."""

Counters = dict[str, int]


class Evidence:
    """Call `before` before the probe is sent; `drops` and `kernels` return the increases afterwards."""

    def __init__(self, nodes: Nodes, known: Map) -> None:
        self._nodes, self._map = nodes, known
        self._drops: dict[str, Counters | None] = {}
        self._kernels: dict[str, Counters] = {}

    def before(self) -> None:
        """Record all counters."""
        self._drops = self._agents(self._nodes)
        self._kernels = self._all_kernels()

    def drops(self) -> dict[str, Counters]:
        """Return increased drop counters of agents, by node and reason."""
        # An agent that did not answer before would only cost its timeout again.
        return _moved(self._drops, self._agents(name for name, drops in self._drops.items() if drops is not None))

    def kernels(self) -> dict[str, Counters]:
        """Return increased kernel counters of lost packets, by place and counter."""
        return _moved(self._kernels, self._all_kernels())

    def _agents(self, nodes: Iterable[str]) -> dict[str, Counters | None]:
        def state(name: str) -> tuple[str, AgentState | None]:
            # A node may be deleted meanwhile.
            node = self._nodes.get(name)
            return name, None if node is None else node.state()

        with ThreadPoolExecutor(ASKERS, "ask agents") as askers:
            states = askers.map(state, nodes)
            # Without an overlay device there are no counters: null.
            return {
                name: None if state is None else (state["counters"] or {}).get("drops", {}) for name, state in states
            }

    def _all_kernels(self) -> dict[str, Counters]:
        return {place.name: kernel_counters(Path(f"/proc/{place.pid or 'self'}/net")) for place in self._map.places}


def kernel_counters(directory: Path) -> Counters:
    """Return the counters of lost packets, by name; empty if the namespace is gone."""
    counters: Counters = {}
    with contextlib.suppress(OSError):
        for file in ("snmp", "netstat"):
            counters.update(_of_protocols((directory / file).read_text()))
        counters.update(_of_ipv6((directory / "snmp6").read_text()))
        counters.update(_of_devices((directory / "dev").read_text()))
    return counters


def _of_protocols(text: str) -> Iterator[tuple[str, int]]:
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group = names.partition(":")[0]
        for name, value in zip(names.split()[1:], values.split()[1:], strict=False):
            if name in TELLING.get(group, ()):
                yield f"{group}{name}", int(value)


def _of_ipv6(text: str) -> Iterator[tuple[str, int]]:
    telling = {f"{group}{name}" for group in ("Ip6", "Udp6") for name in TELLING[group]}
    for name, value in (line.split() for line in text.splitlines()):
        if name in telling:
            yield name, int(value)


def _of_devices(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = numbers.split()
        for column, what in DEVICE_DROPS.items():
            yield f"{name.strip()} {what}", int(values[column])


def _moved(before: Mapping[str, Counters | None], after: Mapping[str, Counters | None]) -> dict[str, Counters]:
    moved: dict[str, Counters] = {}
    for place, counters in after.items():
        then = before.get(place)
        if counters is None or then is None:
            continue
        grown = {name: count - then.get(name, 0) for name, count in counters.items() if count > then.get(name, 0)}
        if grown:
            moved[place] = grown
    return moved
