"""A container's lifecycle handlers: postStart while it starts, preStop before its TERM."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

from testbed.cluster.manifest import Container
from testbed.cluster.probe import LONGEST_S, LifecycleHandler
from testbed.pods.container_document import ContainerPlace
from testbed.pods.prober import Asker, Failure
from testbed.processes.threads import in_background

AFTER_PRE_STOP_S = 2.0
"""Time left for TERM if preStop has used up the grace period."""


class Hooks:
    """Runs the handlers of one container, and reports those that fail."""

    def __init__(
        self,
        container: Container,
        report: Callable[[Literal["Warning"], str, str], None],
        exec_argv: Callable[[Sequence[str], bool], list[str]],
    ) -> None:
        """`report` takes an event's type, reason and message; `exec_argv` returns a command that runs another in it."""
        self._container = container
        self._report = report
        self._exec_argv = exec_argv
        self._post_start_over = threading.Event()
        """Set once postStart of the current run has succeeded."""
        self._pre_stop_over = threading.Event()
        """Set once preStop of the current run has ended, or need not be waited for."""
        self._pre_stop_begun = False
        self._is_cut = False
        self._beginning = threading.Lock()
        """A failed probe and a deletion may end the same run."""

    @property
    def in_post_start(self) -> bool:
        """Return whether the container has a postStart that has not succeeded in its current run."""
        return self._container.lifecycle.post_start is not None and not self._post_start_over.is_set()

    def end_run(self) -> None:
        """Forget the handlers of a run that has ended: they do not concern the next run."""
        self._post_start_over = threading.Event()
        with self._beginning:
            self._pre_stop_over.set()
            self._pre_stop_over, self._pre_stop_begun = threading.Event(), False

    def start_post_start(
        self, place: ContainerPlace, on_success: Callable[[], None], on_failure: Callable[[Failure], None]
    ) -> None:
        """Begin postStart of a run, if there is one; either function is called from another thread."""
        handler = self._container.lifecycle.post_start
        if handler is None:
            return
        over = self._post_start_over = threading.Event()

        def run() -> None:
            failure = self._run("postStart", handler, place, LONGEST_S)
            if over is not self._post_start_over:
                return
            if failure:
                on_failure(failure)
            else:
                over.set()
                on_success()

        in_background(self._container.name, run)

    def run_pre_stop(self, place: ContainerPlace, grace_s: float) -> float:
        """Run preStop, if there is one, until it ends, its run does, or `cut_pre_stop`; return what is left of the
        grace period. It runs once in each run: a second call waits for it.
        """
        handler = self._container.lifecycle.pre_stop
        if handler is None or grace_s <= 0:
            return grace_s
        began = time.monotonic()
        with self._beginning:
            over, is_begun = self._pre_stop_over, self._pre_stop_begun
            self._pre_stop_begun = True

        def run() -> None:
            try:
                self._run("preStop", handler, place, grace_s)
            finally:
                over.set()

        if not is_begun:
            in_background(self._container.name, run)
        if not self._is_cut:
            over.wait(grace_s)
        return max(AFTER_PRE_STOP_S, grace_s - (time.monotonic() - began))

    def cut_pre_stop(self) -> None:
        """Wait for preStop no longer, in this run and any later one."""
        self._is_cut = True
        self._pre_stop_over.set()

    def _run(self, name: str, handler: LifecycleHandler, place: ContainerPlace, limit_s: float) -> Failure:
        if handler.sleep is not None:
            time.sleep(min(handler.sleep.seconds, limit_s))
            return ""
        asker = Asker(self._container, handler.as_probe(limit_s), place.address, place.node_pid, self._exec_argv)
        failure = asker.ask()
        if failure:
            what = f"{name} of {self._container.name}: {failure}"
            self._report("Warning", f"Failed{name[0].upper()}{name[1:]}Hook", what)
        return failure
