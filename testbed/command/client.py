"""How the verbs find a running lab and talk to it. Stdlib only: `status` and `get` must answer at once."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.command.wire import CONTROL_SOCKET, send_line

RUN_ROOT = Path("/run/testbed")
"""Where labs of root lie."""
LAB_FILE = "lab.json"
CLUSTER_FILE = "cluster.yaml"


class TestbedError(Exception):
    """Something to tell the user in one line, and the exit code for it."""

    __test__ = False  # pytest: not a test class

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NoAnswer(TestbedError):
    """The lab did not answer in the time that the caller gave it."""


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What `up` wrote about a lab into its run directory."""

    name: str
    pid: int
    """Of the lab's PID 1, as the host sees it."""
    start_ticks: int
    """Field 22 of /proc/PID/stat: tells this process from a later one with the same pid."""
    rundir: Path
    cluster_file: str
    since: str

    @property
    def rootless(self) -> bool:
        """Whether an ordinary user started it without root."""
        return self.rundir.parent != RUN_ROOT

    @property
    def alive(self) -> bool:
        """Whether the lab's PID 1 still runs. Seen from inside the lab it is our own PID 1."""
        return self.start_ticks in (start_ticks(self.pid), start_ticks(1))


def runtime_directory() -> Path | None:
    """The caller's XDG_RUNTIME_DIR; None where it is not set or somebody else's, as after `sudo -E`."""
    given = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    try:
        return Path(given) if os.stat(given).st_uid == os.geteuid() else None
    except OSError:
        return None


def own_root() -> Path | None:
    """Where labs lie that the caller starts without root."""
    directory = runtime_directory()
    return None if directory is None else directory / "testbed"


def run_roots() -> list[Path]:
    """Every directory in which the caller's labs may lie, their own first."""
    own = own_root()
    return [RUN_ROOT] if own is None else [own, RUN_ROOT]


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such (living) process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])


def read_record(rundir: Path) -> LabRecord | None:
    """The record of a lab, dead or alive; None when there is none or it cannot be read."""
    name = rundir.name
    try:
        record = json.loads((rundir / LAB_FILE).read_text())
        return LabRecord(name, record["pid"], record["start_ticks"], rundir, record["cluster_file"], record["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running_labs() -> list[LabRecord]:
    """Every lab whose PID 1 runs and whose directory this user may read, by name."""
    places: list[Path] = []
    for root in run_roots():
        with contextlib.suppress(OSError):
            places += sorted(root.iterdir())
    return [record for place in places if (record := read_record(place)) is not None and record.alive]


def foreign_labs() -> list[str]:
    """Names of labs, dead or alive, whose directories this user may not read."""
    try:
        return sorted(entry.name for entry in RUN_ROOT.iterdir() if entry.is_dir() and not os.access(entry, os.X_OK))
    except OSError:
        return []


def find_lab(name: str | None) -> LabRecord:
    """The lab that is meant: by name, by TESTBED_LAB, or the only one. Raises TestbedError when there is no such."""
    name = name or os.environ.get("TESTBED_LAB") or None
    labs, foreign = running_labs(), foreign_labs()
    named = any(lab.name == name for lab in labs)
    if (name in foreign and not named) or (name is None and not labs and foreign):
        raise TestbedError(f"lab {name or ', '.join(foreign)}: not yours to ask (try with sudo)", 3)
    if name is not None:
        for lab in labs:
            if lab.name == name:
                return lab
        others = f" (running: {', '.join(lab.name for lab in labs)})" if labs else ""
        raise TestbedError(f"no lab named {name} is running{others} (start one: sudo testbed up --lab {name})")
    if not labs:
        raise TestbedError("no lab is running (start one: sudo testbed up)")
    if len(labs) > 1:
        names = ", ".join(lab.name for lab in labs)
        raise TestbedError(f"several labs are running: {names} (say which: --lab NAME or TESTBED_LAB)", 2)
    return labs[0]


class LabConnection:
    """One request to a lab. Closing it, also by dying, ends whatever the request started."""

    def __init__(self, lab: LabRecord, timeout_s: float | None = None) -> None:
        """`timeout_s`: how long to wait for each message of the lab; None for as long as it takes."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(lab.rundir / CONTROL_SOCKET))
        except PermissionError as failure:
            self._socket.close()
            raise TestbedError(f"lab {lab.name}: not yours to ask (try with sudo)", 3) from failure
        except OSError as failure:
            self._socket.close()
            raise TestbedError(
                f"lab {lab.name}: does not answer ({failure.strerror}; see {lab.rundir}/lab.log)"
            ) from failure

    def ask(self, verb: str, descriptors: tuple[int, ...] = (), **arguments: object) -> Iterator[dict[str, Any]]:
        """Send the request and yield its messages up to the result.

        Raises TestbedError for an error answer, NoAnswer when nothing came in time.
        """
        try:
            # Turned away already: why is still there to be read.
            with contextlib.suppress(BrokenPipeError):
                send_line(self._socket, {"verb": verb, "arguments": arguments}, descriptors)
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "error" in message:
                        raise TestbedError(message["error"], message["exit"])
                    yield message
                    if "result" in message:
                        return
        except TimeoutError as late:
            raise NoAnswer(f"{verb}: no answer within {self._socket.gettimeout():g} s") from late
        raise TestbedError("the lab ended before it answered")

    def shutdown(self) -> None:
        """End the request while another thread waits for its messages."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the request."""
        self._socket.close()

    def __enter__(self) -> "LabConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(
    lab: LabRecord,
    verb: str,
    descriptors: tuple[int, ...] = (),
    answer_within_s: float | None = None,
    **arguments: object,
) -> Any:  # noqa: ANN401 - JSON
    """Send one request and return its result. Raises TestbedError; NoAnswer after `answer_within_s` seconds."""
    with LabConnection(lab, answer_within_s) as connection:
        for message in connection.ask(verb, descriptors, **arguments):
            if "result" in message:
                return message["result"]
    raise TestbedError("the lab ended before it answered")
