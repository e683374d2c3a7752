"""Finds running labs and sends them requests. Standard library only: `status` and `get` must be fast."""

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from testbed.control.questions import AnswerT, Question
from testbed.control.wire import CONTROL_SOCKET, PROTOCOL, peer_uid, protocol_of, send_line
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.plain_files import read_plain
from testbed.spelling import listed

RUN_ROOT = Path("/run/testbed")
"""Directory of root's labs."""
LAB_FILE = "lab.json"
CLUSTER_FILE = "cluster.yaml"
NOT_YOURS = "belongs to another user (want: the same command with sudo)"
RECORD_BYTES = 4096
"""More than any lab.json."""
BUFFER_BYTES = 64 * 1024
"""Read at a time: an answer may have megabytes."""


class NoAnswer(TestbedError):
    """The lab did not answer within the caller's time limit."""


@dataclass(frozen=True, slots=True)
class LabRecord:
    """The record about a lab that `up` wrote into its run directory."""

    name: str
    pid: int
    """Of the lab's PID 1, in the host's PID namespace."""
    start_ticks: int
    """Field 22 of /proc/PID/stat: distinguishes this process from a later one with the same pid."""
    rundir: Path
    owner: int
    """User id of the only user besides root who may view the lab."""
    protocol: int = PROTOCOL
    """The protocol of its control socket."""

    @property
    def rootless(self) -> bool:
        """Return whether an ordinary user started it without root."""
        return self.rundir.parent != RUN_ROOT

    @property
    def alive(self) -> bool:
        """Return whether the lab's PID 1 still runs. Inside the lab it is our own PID 1."""
        return self.start_ticks in (start_ticks(self.pid), start_ticks(1))

    @property
    def ours(self) -> bool:
        """Return whether the caller may send it requests."""
        return os.geteuid() in (0, self.owner)


@dataclass(frozen=True, slots=True)
class LabsThere:
    """The labs in the directories of labs, from the caller's view."""

    ours: Sequence[LabRecord]
    """Running labs that the caller may query, by name."""
    foreign: Sequence[str]
    """Names of other users' labs."""
    doubtful: Mapping[str, str]
    """Names of labs whose directories another user could have modified, and why."""


def runtime_directory() -> Path | None:
    """Return the caller's XDG_RUNTIME_DIR; None if it is unset or another user's, as after `sudo -E`."""
    given = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    try:
        return Path(given) if os.stat(given).st_uid == os.geteuid() else None
    except OSError:
        return None


def own_root() -> Path | None:
    """Return the directory of labs that the caller starts without root."""
    directory = runtime_directory()
    return None if directory is None else directory / "testbed"


def run_roots() -> list[Path]:
    """Return every directory with labs of the caller, their own first.

    Raises TestbedError (environment) for one that another user could have modified.
    """
    own = own_root()
    roots = [RUN_ROOT] if own is None else [own, RUN_ROOT]
    for root in roots:
        with contextlib.suppress(FileNotFoundError):
            check_root(root)
    return roots


def check_root(root: Path) -> None:
    """Raise TestbedError (environment) if labs in it are not trustworthy. Raises FileNotFoundError."""
    if why := doubt(root):
        want = "a directory of root's that no other user can write" if root == RUN_ROOT else "a directory of your own"
        raise WrongEnvironment(f"{root}: {why} (want {want}; check it, then remove it)")


def doubt(directory: Path) -> str:
    """Return why users other than root and the caller could have modified it; empty if they could not.

    Raises FileNotFoundError.
    """
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {status.st_uid}"
    return f"can be written by others (mode {status.st_mode & 0o7777:04o})" if status.st_mode & 0o022 else ""


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is no such (living) process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])


def read_record(rundir: Path) -> LabRecord | None:
    """Read the record of a lab, dead or alive; None if it is missing, unreadable or untrustworthy."""
    try:
        if doubt(rundir):
            return None
        record = json.loads(read_plain(rundir / LAB_FILE, RECORD_BYTES))
        # An older testbed made the owner the directory's owner instead.
        owner = record.get("owner", rundir.lstat().st_uid)
        numbers = (record["pid"], record["start_ticks"], owner)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    # bool is an int too; the digits become a path below /proc.
    if not all(type(number) is int for number in numbers):
        return None
    return LabRecord(rundir.name, record["pid"], record["start_ticks"], rundir, owner, protocol_of(record))


def look_for_labs() -> LabsThere:
    """Return every lab of the machine. Raises TestbedError (environment) as `run_roots`."""
    ours, foreign, doubtful = [], [], {}
    for root in run_roots():
        for rundir in directories_in(root):
            record = read_record(rundir)
            if record is not None:
                if record.alive and record.ours:
                    ours.append(record)
                elif record.alive:
                    foreign.append(record.name)
                continue
            with contextlib.suppress(FileNotFoundError):
                why = doubt(rundir) if stat.S_ISDIR(rundir.lstat().st_mode) else ""
                if why and os.geteuid() == 0:
                    doubtful[rundir.name] = why
                elif why and root == RUN_ROOT:
                    foreign.append(rundir.name)
    return LabsThere(ours, foreign, doubtful)


def directories_in(root: Path) -> list[Path]:
    """Return possible labs in a directory of labs; locks and drafts have hidden names."""
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def running_labs() -> Sequence[LabRecord]:
    """Return every running lab that the caller may query, by name. Raises TestbedError as `look_for_labs`."""
    return look_for_labs().ours


def find_lab(name: str | None) -> LabRecord:
    """Return the requested lab: by name, by TESTBED_LAB, or the only one. Raises TestbedError if there is none."""
    name = name or os.environ.get("TESTBED_LAB") or None
    there = look_for_labs()
    labs = [lab for lab in there.ours if name in (None, lab.name)]
    if len(labs) == 1 or (labs and name is not None):
        check_protocol(labs[0], labs[0].protocol)
        return labs[0]
    if not labs:
        raise _not_found(name, there)
    names = listed(lab.name for lab in labs)
    raise InvalidInput(f"several labs are running: {names} (choose one: --lab NAME or TESTBED_LAB)")


def check_protocol(lab: LabRecord, protocol: int) -> None:
    """Raise TestbedError, with advice, for a lab whose answers this testbed may misread."""
    if protocol == PROTOCOL:
        return
    down = f"{'' if lab.rootless else 'sudo '}testbed down --lab {lab.name}"
    said = f"(protocol {protocol}; this one speaks {PROTOCOL})"
    if protocol < PROTOCOL:
        raise TestbedError(f"lab {lab.name}: runs an older testbed {said}: take it down and bring it up again: {down}")
    raise TestbedError(f"lab {lab.name}: runs a newer testbed {said}: update this one, or take the lab down: {down}")


def _not_found(name: str | None, there: LabsThere) -> TestbedError:
    foreign = [lab for lab in there.foreign if name in (None, lab)]
    if foreign:
        return WrongEnvironment(f"lab {', '.join(foreign)}: {NOT_YOURS}")
    for lab, why in there.doubtful.items():
        if name in (None, lab):
            return TestbedError(doubtful_lab(lab, why))
    if name is None:
        return TestbedError("no lab is running (start one: sudo testbed up)")
    others = f"running: {listed((lab.name for lab in there.ours), name)}; " if there.ours else ""
    return TestbedError(f"no lab named {name} is running ({others}start it: sudo testbed up --lab {name})")


def doubtful_lab(name: str, why: str) -> str:
    """Return the error for a lab with an untrustworthy directory."""
    return (
        f"lab {name}: {RUN_ROOT / name} {why}, so it cannot be trusted (older versions gave it to the user; take the"
        f" lab down: sudo testbed down --lab {name})"
    )


Message: TypeAlias = dict[str, Any]
"""A line of the control socket: `progress`, or the final `result`."""


class LabConnection:
    """One request to a lab. Closing it, even by dying, ends everything that the request started."""

    def __init__(
        self, lab: LabRecord, timeout_s: float | None = None, read: Callable[[bytes], Message] = json.loads
    ) -> None:
        """Connect; `timeout_s`: how long to wait for each message of the lab; None: indefinitely.

        `read`: parses a line.
        """
        check_protocol(lab, lab.protocol)
        self._lab = lab
        self._read = read
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(lab.rundir / CONTROL_SOCKET))
        except PermissionError as failure:
            self._socket.close()
            raise WrongEnvironment(f"lab {lab.name}: {NOT_YOURS}") from failure
        except OSError as failure:
            self._socket.close()
            raise TestbedError(
                f"lab {lab.name}: does not answer ({failure.strerror}; see {lab.rundir}/lab.log)"
            ) from failure
        # A request may carry the caller's terminal.
        if (uid := peer_uid(self._socket)) not in (0, os.geteuid()):
            self._socket.close()
            what = f"uid {uid} answers on its control socket (want root, or the caller)"
            raise WrongEnvironment(f"lab {lab.name}: {what}")

    def ask(
        self, question: Question[Any], descriptors: tuple[int, ...] = (), **arguments: object
    ) -> Generator[Message, None, None]:
        """Send the request and yield its messages up to the result.

        Raises TestbedError for an error answer, NoAnswer if none came in time.
        """
        try:
            # Rejected already: the reason can still be read.
            with contextlib.suppress(BrokenPipeError):
                send_line(self._socket, {"verb": question.name, "arguments": arguments}, descriptors)
            with self._socket.makefile("rb", BUFFER_BYTES) as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    message = self._read(line)
                    if "error" in message:
                        raise TestbedError(message["error"], message["exit"])
                    check_protocol(self._lab, protocol_of(message))
                    yield message
                    if "result" in message:
                        return
        except TimeoutError as late:
            raise NoAnswer(f"{question.name}: no answer within {self._socket.gettimeout():g} s") from late
        except ConnectionResetError:
            pass
        raise TestbedError("the lab ended before it answered, or gave up sending its answer")

    def result(self, question: Question[AnswerT], descriptors: tuple[int, ...] = (), **arguments: object) -> AnswerT:
        """Send the request and return its result. Raises TestbedError as `ask`."""
        # If left to the garbage collector, its cleanup could swallow a Ctrl-C at that moment.
        with contextlib.closing(self.ask(question, descriptors, **arguments)) as messages:
            for message in messages:
                if "result" in message:
                    # The lab's end was checked to return this.
                    return cast("AnswerT", message["result"])
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
    question: Question[AnswerT],
    descriptors: tuple[int, ...] = (),
    answer_within_s: float | None = None,
    **arguments: object,
) -> AnswerT:
    """Send one request and return its result. Raises TestbedError; NoAnswer after `answer_within_s` seconds."""
    with LabConnection(lab, answer_within_s) as connection:
        return connection.result(question, descriptors, **arguments)


def ask_with_contents(
    record: LabRecord,
    question: Question[AnswerT],
    contents: Mapping[str, bytes],
    *,
    cluster_files: bool = False,
    **arguments: object,
) -> AnswerT:
    """Pass files' contents as a file in memory: they may exceed a request's size limit.

    `cluster_files`: each is a cluster file, whose first document is not an object.
    """
    import base64

    files = [
        {
            "name": "standard input" if name == "-" else name,
            "data": base64.b64encode(data).decode(),
            "cluster": cluster_files,
        }
        for name, data in contents.items()
    ]
    memory = os.memfd_create("manifests", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(json.dumps(files).encode())
        return ask(record, question, (memory,), None, **arguments)
    finally:
        os.close(memory)
