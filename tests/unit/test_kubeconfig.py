"""The verb `kubeconfig`, in front of a lab whose API server only holds its port."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from testbed.command import kubeconfig_command
from testbed.command.command_line import verbs
from testbed.command.loopback import listen
from testbed.control.client import LabRecord, start_ticks
from testbed.control.server import ControlServer
from testbed.control.wire import CONTROL_SOCKET
from testbed.errors import InvalidInput, WrongEnvironment
from testbed.supervisor.api_process import ApiProcess


class _Api(ApiProcess):
    def _start(self, listener: int) -> None:
        self.listener = socket.socket(fileno=os.dup(listener))
        self._port = self.listener.getsockname()[1]
        self._process = cast("Any", SimpleNamespace(poll=lambda: None))


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the verb of a lab; yield the lab's directory."""
    api = _Api("one", tmp_path, os.getuid())
    ControlServer(tmp_path / CONTROL_SOCKET, [api.verb()], os.getuid()).start()
    record = LabRecord("one", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, os.getuid())
    monkeypatch.setattr(kubeconfig_command, "find_lab", lambda _: record)
    yield tmp_path
    if api._process is not None:
        api.listener.close()


@pytest.fixture
def port() -> int:
    """Return a free port."""
    with listen("a test", 0) as listener:
        return int(listener.getsockname()[1])


def _kubeconfig(*words: str) -> str:
    done = CliRunner().invoke(verbs, ["kubeconfig", *words], standalone_mode=False, catch_exceptions=False)
    return done.output


def test_the_port_on_which_the_api_runs_may_be_asked_for_again(lab: Path, port: int) -> None:
    for words in (("--port", str(port)), ("--port", str(port)), ()):
        assert _kubeconfig(*words) == f"{lab}/api/kubeconfig\n"


def test_another_port_than_that_of_the_running_api_is_refused(port: int) -> None:
    _kubeconfig("--port", str(port))
    with pytest.raises(InvalidInput, match=rf"runs already \(got {port - 1}; want {port}\)"):
        _kubeconfig("--port", str(port - 1))


def test_a_port_that_another_program_has_is_refused_before_the_api_starts() -> None:
    with listen("a test", 0) as taken:
        taken_port = taken.getsockname()[1]
        with pytest.raises(WrongEnvironment, match=f"cannot listen .*:{taken_port}, Address already in use"):
            _kubeconfig("--port", str(taken_port))
