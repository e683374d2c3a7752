"""The steps of a bench run: which paths, which measurements, in which order. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["tcp", "udp", "latency"]
SWITCH_S = 2.0
"""Approximate time to switch traffic to another path: both agents restart."""
OVERHEAD_S = 0.7
"""Approximate overhead of a measurement."""


@dataclass(frozen=True, slots=True)
class BenchPath:
    """One path between two nodes."""

    name: str
    description: str
    backend: str | None = None
    """The backend of our agents; None where they carry nothing."""
    datapath: str | None = None
    """The data path of our agents' udp backend."""


PATHS = {
    path.name: path
    for path in (
        BenchPath("python", "udp backend, one packet per system call", "udp", "python"),
        BenchPath("native", "udp backend, packets in bulk", "udp", "native"),
        BenchPath("kernel", "udp backend, made by the kernel (FOU), no process", "udp", "kernel"),
        BenchPath("vxlan", "plain kernel vxlan, built by hand, no agent"),
        BenchPath("none", "no overlay: from node to node on the underlay"),
        BenchPath("host-gw", "plain routes from node to node, made by hand, no agent"),
    )
}
USUAL = ("python", "native", "vxlan", "none")
"""The default paths."""
BACKENDS = ("udp", "vxlan", "host-gw", "ipip", "wireguard")
"""Our agent's backends that connect nodes."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a load generator."""

    name: str
    title: str
    kind: Kind
    streams: int = 1
    reverse: bool = False
    """From the second node to the first."""
    payload: int = 0
    """Bytes of a datagram."""


MEASUREMENTS = (
    Measurement("tcp_1_forward", "TCP, 1 stream, forward", "tcp"),
    Measurement("tcp_1_reverse", "TCP, 1 stream, reverse", "tcp", reverse=True),
    Measurement("tcp_4_forward", "TCP, 4 streams, forward", "tcp", streams=4),
    Measurement("tcp_4_reverse", "TCP, 4 streams, reverse", "tcp", streams=4, reverse=True),
    Measurement("udp_16", "UDP, 16 B", "udp", payload=16),
    Measurement("udp_1400", "UDP, 1400 B", "udp", payload=1400),
    Measurement("latency", "TCP ping-pong", "latency"),
)


@dataclass(frozen=True, slots=True)
class BenchStep:
    """Switch to `path`, or measure on it."""

    round: int
    path: BenchPath
    measurement: Measurement | None
    """None: switch to the path."""
    expected_s: float


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """A whole run."""

    paths: tuple[BenchPath, ...]
    rounds: int
    seconds: int
    """Duration of each measurement."""
    measurements: tuple[Measurement, ...] = MEASUREMENTS

    def steps(self) -> Iterator[BenchStep]:
        """Yield the steps round by round. Each round starts with another path, so that none is always first or last."""
        for number in range(1, self.rounds + 1):
            first = (number - 1) % len(self.paths)
            for path in (*self.paths[first:], *self.paths[:first]):
                yield BenchStep(number, path, None, SWITCH_S if path.backend else 0.0)
                for measurement in self.measurements:
                    yield BenchStep(number, path, measurement, self.seconds + OVERHEAD_S)

    @property
    def expected_s(self) -> float:
        """Return the approximate duration."""
        return sum(step.expected_s for step in self.steps())


def choose_paths(names: str, backends: str) -> tuple[BenchPath, ...]:
    """Return the paths that comma-separated names mean. Raises ValueError."""
    paths = [_known("path", name, PATHS) for name in _split(names)]
    of_backends = {name: BenchPath(f"{name}-backend", f"our agent's {name} backend", name, "auto") for name in BACKENDS}
    paths += [_known("backend", name, of_backends) for name in _split(backends)]
    twice = sorted({path.name for path in paths if paths.count(path) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    if not paths:
        raise ValueError(f"no path (want one or more of {', '.join(PATHS)}, or --backends)")
    return tuple(paths)


def choose_measurements(names: str) -> tuple[Measurement, ...]:
    """Return the measurements that comma-separated names or kinds mean; all for none. Raises ValueError."""
    wanted = set(_split(names))
    known = {word for one in MEASUREMENTS for word in (one.name, one.kind)}
    if unknown := sorted(wanted - known):
        words = ",".join(dict.fromkeys([*(one.kind for one in MEASUREMENTS), *(one.name for one in MEASUREMENTS)]))
        raise ValueError(f"no such measurement (got {unknown[0]}; want some of {words})")
    return tuple(one for one in MEASUREMENTS if not wanted or wanted & {one.name, one.kind})


def _split(names: str) -> Sequence[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _known(what: str, name: str, known: dict[str, BenchPath]) -> BenchPath:
    if name not in known:
        raise ValueError(f"no such {what} (got {name}; want some of {','.join(known)})")
    return known[name]
