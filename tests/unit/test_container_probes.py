"""The probes of one run of a container: what their results lead to."""

from typing import Any

import pytest

from testbed.cluster.manifest import Container, PodManifest
from testbed.pods import container_probes
from testbed.pods.container_probes import ContainerProbes, ProbeTarget
from testbed.pods.probe_state import ProbeState
from testbed.pods.prober import OnResult

TARGET = ProbeTarget("10.0.1.2", 1, lambda argv, tty: list(argv))
PROBE = {"tcpSocket": {"port": 8080}, "failureThreshold": 3}


class StandIn:
    """A prober that asks nothing."""

    def __init__(self, name: str, _probe: object, _asker: object, state: ProbeState, on_result: OnResult) -> None:
        self.kind = name.partition(" ")[0]
        self.state = state
        self.on_result = on_result
        self.is_started = self.is_stopped = False

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Return the probers made so far."""
    found: list[StandIn] = []

    def make(name: str, *rest: Any, **_options: bool) -> StandIn:  # noqa: ANN401 - as the prober has them
        found.append(StandIn(name, *rest))
        return found[-1]

    monkeypatch.setattr(container_probes, "Prober", make)
    return found


def container() -> Container:
    probes = {"startupProbe": PROBE, "livenessProbe": PROBE, "readinessProbe": PROBE}
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "echo", **probes}]},
    }
    return PodManifest.model_validate(manifest).spec.containers[0]


class Run:
    """The probes of a container, and what they have reported and done."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.kills = 0
        self.probes = ContainerProbes(
            "web", container(), lambda kind, reason, message: self.reports.append(message), lambda: None, self.kill
        )
        self.probes.start(TARGET)

    def kill(self) -> None:
        self.kills += 1


def test_a_startup_probe_that_gives_up_is_named_where_the_container_is_restarted(made: list[StandIn]) -> None:
    run = Run()
    made[0].on_result(ProbeState(passing=False, streak=-2), ProbeState(passing=False, streak=-3), "refused")
    assert (run.reports[-1], run.kills) == ("container c is restarted: its startup probe failed", 1)


def test_the_other_probes_begin_once_the_container_has_started(made: list[StandIn]) -> None:
    run = Run()
    made[0].on_result(ProbeState(passing=False), ProbeState(passing=True, streak=1), "")
    assert [(one.kind, one.is_started, one.is_stopped) for one in made] == [
        ("startup", True, True),
        ("readiness", True, False),
        ("liveness", True, False),
    ]
    run.probes.stop()
    assert all(one.is_stopped for one in made)


def test_a_startup_probe_that_succeeds_as_its_run_ends_starts_no_others(made: list[StandIn]) -> None:
    run = Run()
    run.probes.stop()
    made[0].on_result(ProbeState(passing=False), ProbeState(passing=True, streak=1), "")
    assert [one.kind for one in made] == ["startup"]
    run.probes.start(TARGET)
    made[0].on_result(ProbeState(passing=False), ProbeState(passing=True, streak=1), "")
    assert [one.kind for one in made] == ["startup", "startup"], "the next run has not started yet"
