"""The probes of one run of a container: their results and consequences."""

import threading
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from testbed.cluster.manifest import Container
from testbed.cluster.probe import Probe
from testbed.pods.probe_state import ALIVE, NOT_READY_YET, ProbeState
from testbed.pods.prober import Asker, Failure, Prober

Kind = Literal["readiness", "liveness", "startup"]
Report = Callable[[Literal["Normal", "Warning"], str, str], None]
"""Called with a Kubernetes event's type, reason and message."""


class ProbeTarget(NamedTuple):
    """The targets of a run's probes."""

    address: str
    node_pid: int
    exec_argv: Callable[[Sequence[str], bool], list[str]]


class ContainerProbes:
    """Starts and stops with each run of its container."""

    def __init__(
        self, pod: str, container: Container, report: Report, on_ready: Callable[[], None], kill: Callable[[], None]
    ) -> None:
        """`on_ready` is called when the readiness probe's result changes, `kill` when the liveness probe fails."""
        self._pod = pod
        self._container = container
        self._report = report
        self._on_ready = on_ready
        self._kill = kill
        self._probers: list[Prober] = []
        self._readiness: Prober | None = None
        self._startup: Prober | None = None
        self._changing = threading.Lock()
        """A run may end at the moment in which its startup probe succeeds."""

    @property
    def decides(self) -> bool:
        """Return whether there is a readiness probe; only then is `ready` meaningful."""
        return self._container.readiness_probe is not None

    @property
    def started(self) -> bool:
        """Return whether there is no startup probe, or it has succeeded."""
        # Read once: the end of a run takes it away.
        startup = self._startup
        return self._container.startup_probe is None or (startup is not None and startup.state.passing)

    @property
    def ready(self) -> bool:
        """Return the readiness probe's current result."""
        readiness = self._readiness
        return readiness is not None and readiness.state.passing

    def start(self, target: ProbeTarget) -> None:
        """Start with a new run of the container; the other probes wait until the startup probe has succeeded."""
        self.stop()
        with self._changing:
            if self._container.startup_probe is None:
                made = self._make_others(target)
            else:
                self._startup = self._prober("startup", self._container.startup_probe, target, NOT_READY_YET)
                made = [self._startup]
                self._probers += made
        for prober in made:
            prober.start()

    def _follow(self, startup: Prober, target: ProbeTarget) -> bool:
        """Start the other probes after this one; return False if its run is over."""
        with self._changing:
            if startup is not self._startup:
                return False
            startup.stop()
            others = self._make_others(target)
        # One that was stopped meanwhile asks nothing.
        for prober in others:
            prober.start()
        return True

    def _make_others(self, target: ProbeTarget) -> list[Prober]:
        made = []
        if self._container.readiness_probe is not None:
            self._readiness = self._prober("readiness", self._container.readiness_probe, target, NOT_READY_YET)
            made.append(self._readiness)
        if self._container.liveness_probe is not None:
            made.append(self._prober("liveness", self._container.liveness_probe, target, ALIVE))
        self._probers += made
        return made

    def stop(self) -> None:
        """End with the run: it is not ready, and no probe runs any more."""
        with self._changing:
            for prober in self._probers:
                prober.stop()
            self._probers, self._readiness, self._startup = [], None, None

    def _prober(self, kind: Kind, probe: Probe, target: ProbeTarget, state: ProbeState) -> Prober:
        asker = Asker(self._container, probe, *target)
        prober: Prober

        def on_result(before: ProbeState, after: ProbeState, failure: Failure) -> None:
            # Of a row of failures, the first and the decisive one are reported.
            gives_up = kind == "startup" and after.streak == -probe.failure_threshold
            decides = before.passing != after.passing or gives_up
            if failure and (after.streak == -1 or decides):
                what = f"{kind} probe of container {self._container.name} failed"
                tries = f" ({-after.streak} times in a row)" if decides else ""
                self._report("Warning", "Unhealthy", f"{what}{tries}: {failure}")
            if decides and kind == "readiness":
                self._on_ready()
            elif kind == "startup" and after.passing:
                if decides and self._follow(prober, target):
                    self._on_ready()
            elif decides:
                self._report(
                    "Normal", "Killing", f"container {self._container.name} is restarted: its {kind} probe failed"
                )
                self._kill()

        name = f"{kind} {self._pod}/{self._container.name}"
        # A stand-in answers at once, however long the program that it replaces takes.
        at_once = self._container.stand_in
        prober = Prober(name, probe, asker, state, on_result, spaced=kind == "startup", at_once=at_once)
        return prober
