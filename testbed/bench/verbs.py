"""Verbs of a lab made for a bench run: switch to a path, measure on it."""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from agent.errors import AgentError
from testbed.bench.load_tools import measure, processor_seconds
from testbed.bench.measured_paths import AgentPath, MeasuredPath, NoOverlay, PlainRoutes, PlainVxlan
from testbed.bench.plan import MEASUREMENTS
from testbed.control.answers.bench import MeasurementAnswer
from testbed.control.questions import BENCH_MEASURE, BENCH_TAKE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.state import LabState


def bench_verbs(state: LabState) -> Sequence[AnyVerb]:
    """Return the verbs."""
    bench = BenchVerbs(state)
    return (Verb(BENCH_TAKE, bench.take), Verb(BENCH_MEASURE, bench.measure))


class BenchVerbs:
    """Measures between the first pods of the first two nodes."""

    def __init__(self, state: LabState) -> None:
        self._state = state
        self._paths: dict[tuple[str | None, ...], MeasuredPath] = {}
        self._active: MeasuredPath | None = None
        self._one_at_a_time = threading.Lock()

    def take(self, request: Request) -> None:
        """Switch traffic to a path."""
        name, backend = request.argument("name", str), request.argument("backend", str)
        datapath = request.argument("datapath", str)
        with self._one_at_a_time, _reported(f"bench: {name}"):
            path = self._path(name, backend, datapath)
            path.activate()
            self._active = path

    def measure(self, request: Request) -> MeasurementAnswer:
        """Measure on the path chosen last."""
        name, seconds = request.argument("measurement", str), request.argument("seconds", int, 1)
        chosen = next((measurement for measurement in MEASUREMENTS if measurement.name == name), None)
        if chosen is None or self._active is None:
            raise InvalidInput(f"bench: no such measurement, or no path chosen (got {name})")
        with self._one_at_a_time, _reported(f"bench: {name}"):
            pids = self._active.agent_pids()
            before = processor_seconds(pids)
            raw = measure(chosen, self._active.ends(), seconds, request.client_left)
            spent = processor_seconds(pids) - before
        raw["agents_cpu_s"] = spent if pids else None
        return raw

    def _path(self, name: str, backend: str | None, datapath: str | None) -> MeasuredPath:
        key, state = (name, backend, datapath), self._state
        if key not in self._paths:
            first, second = list(state.nodes)[:2]
            pods = [state.pods.on(first)[0], state.pods.on(second)[0]]
            if backend is not None:
                self._paths[key] = AgentPath(state, pods, backend, datapath or "auto")
            elif name == "vxlan":
                self._paths[key] = PlainVxlan(state.nodes, state.cluster.underlay.mtu, pods)
            elif name == "host-gw":
                self._paths[key] = PlainRoutes(state.nodes, state.cluster.underlay.mtu, pods)
            else:
                self._paths[key] = NoOverlay(state.nodes)
        return self._paths[key]


@contextlib.contextmanager
def _reported(where: str) -> Iterator[None]:
    try:
        yield
    except TestbedError as failure:
        raise failure.within(where) from failure
    except (AgentError, ProcessLookupError) as failure:
        raise TestbedError(f"{where}: {failure}") from failure
