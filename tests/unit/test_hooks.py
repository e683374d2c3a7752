"""preStop: once in each run, and no longer than anything may wait for it."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from testbed.cluster.manifest import Container
from testbed.pods.container_document import ContainerPlace
from testbed.pods.hooks import Hooks

PLACE = ContainerPlace(pause_pid=1, node_pid=1, hostname="pod", address="10.0.46.2")
LONG_S = 60.0
SOON_S = 20.0
"""Less than the handler takes."""


def hooks(action: Mapping[str, object]) -> Hooks:
    """Return the handlers of a container with this preStop; commands run here."""
    container = Container.model_validate({"name": "c", "image": "shell", "lifecycle": {"preStop": action}})
    return Hooks(container, lambda kind, reason, message: None, lambda argv, tty: list(argv))


SLEEPS = {"sleep": {"seconds": int(LONG_S)}}


def test_pre_stop_runs_once_in_each_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = hooks({"exec": {"command": ["sh", "-c", f"echo stop >> {log}"]}})
    for _ in range(2):
        made.run_pre_stop(PLACE, LONG_S)
    assert log.read_text() == "stop\n"
    made.end_run()
    made.run_pre_stop(PLACE, LONG_S)
    assert log.read_text() == "stop\nstop\n"


def test_pre_stop_of_a_run_that_has_ended_is_not_waited_for() -> None:
    made = hooks(SLEEPS)
    waiting = [threading.Thread(target=made.run_pre_stop, args=(PLACE, LONG_S), daemon=True) for _ in range(2)]
    for one in waiting:
        one.start()
    ends = time.monotonic() + SOON_S
    while any(one.is_alive() for one in waiting) and time.monotonic() < ends:
        made.end_run()
        time.sleep(0.01)
    assert not any(one.is_alive() for one in waiting)


def test_pre_stop_is_cut_before_it_has_begun_and_in_a_later_run() -> None:
    made = hooks(SLEEPS)
    made.cut_pre_stop()
    before = time.monotonic()
    made.run_pre_stop(PLACE, LONG_S)
    made.end_run()
    made.run_pre_stop(PLACE, LONG_S)
    assert time.monotonic() - before < SOON_S


def test_pre_stop_leaves_some_time_for_term_and_none_without_a_grace_period() -> None:
    made = hooks(SLEEPS)
    assert made.run_pre_stop(PLACE, 0.0) == 0.0
    assert made.run_pre_stop(PLACE, 0.1) == 2.0
