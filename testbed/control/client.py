"""How the verbs find a running lab and talk to it. Stdlib only: `status` and `get` must answer at once."""

import contextlib
import json
import os
import socket
import stat
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from testbed.control.questions import AnswerT, Question
from testbed.control.wire import CONTROL_SOCKET, PROTOCOL, peer_uid, protocol_of, send_line
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.plain_files import read_plain
from testbed.spelling import listed

RUN_ROOT = Path("/run/testbed")
"""Where labs of root lie."""
LAB_FILE = "lab.json"
CLUSTER_FILE = "cluster.yaml"
NOT_YOURS = "belongs to another user (want: the same command with sudo)"
RECORD_BYTES = 4096
"""More than a lab.json ever has."""


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
    owner: int
    """User id of who may look at the lab, besides root."""
    protocol: int = PROTOCOL
    """What its control socket speaks."""

    @property
    def rootless(self) -> bool:
        """Whether an ordinary user started it without root."""
        return self.rundir.parent != RUN_ROOT

    @property
    def alive(self) -> bool:
        """Whether the lab's PID 1 still runs. Seen from inside the lab it is our own PID 1."""
        return self.start_ticks in (start_ticks(self.pid), start_ticks(1))

    @property
    def ours(self) -> bool:
        """Whether the caller may ask it something."""
        return os.geteuid() in (0, self.owner)


@dataclass(frozen=True, slots=True)
class LabsThere:
    """What the directories of labs hold, for the caller."""

    ours: Sequence[LabRecord]
    """Labs that run and that the caller may ask, by name."""
    foreign: Sequence[str]
    """Names of other users' labs."""
    doubtful: Mapping[str, str]
    """Names of labs in whose directories another user than root could have put things, and why."""


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
    """Every directory in which the caller's labs may lie, their own first.

    Raises TestbedError (environment) for one in which another user could have put things.
    """
    own = own_root()
    roots = [RUN_ROOT] if own is None else [own, RUN_ROOT]
    for root in roots:
        with contextlib.suppress(FileNotFoundError):
            check_root(root)
    return roots


def check_root(root: Path) -> None:
    """Raises TestbedError (environment) when labs in it are not to be believed; FileNotFoundError."""
    if why := doubt(root):
        want = (
            "a directory of root's own that no other user can write" if root == RUN_ROOT else "a directory of your own"
        )
        raise WrongEnvironment(f"{root}: {why} (want {want}; look what it is, then remove it)")


def doubt(directory: Path) -> str:
    """Why others than root and the caller could have put things there, in words; empty when they could not.

    Raises FileNotFoundError.
    """
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is no directory"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {status.st_uid}"
    return f"can be written by others (mode {status.st_mode & 0o7777:04o})" if status.st_mode & 0o022 else ""


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such (living) process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])


def read_record(rundir: Path) -> LabRecord | None:
    """The record of a lab, dead or alive; None when there is none, or none that can be read and believed."""
    try:
        if doubt(rundir):
            return None
        record = json.loads(read_plain(rundir / LAB_FILE, RECORD_BYTES))
        # An older testbed gave the directory to the owner instead.
        owner = record.get("owner", rundir.lstat().st_uid)
        numbers = (record["pid"], record["start_ticks"], owner)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    # bool is an int too; the digits become a path below /proc.
    if not all(type(number) is int for number in numbers):
        return None
    return LabRecord(rundir.name, record["pid"], record["start_ticks"], rundir, owner, protocol_of(record))


def look_for_labs() -> LabsThere:
    """Every lab of the machine. Raises TestbedError (environment) as `run_roots`."""
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
    """What may be a lab's in a directory of labs; locks and drafts have hidden names."""
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def running_labs() -> Sequence[LabRecord]:
    """Every lab that runs and that the caller may ask, by name. Raises TestbedError as `look_for_labs`."""
    return look_for_labs().ours


def find_lab(name: str | None) -> LabRecord:
    """The lab that is meant: by name, by TESTBED_LAB, or the only one. Raises TestbedError when there is no such."""
    name = name or os.environ.get("TESTBED_LAB") or None
    there = look_for_labs()
    labs = [lab for lab in there.ours if name in (None, lab.name)]
    if len(labs) == 1 or (labs and name is not None):
        check_protocol(labs[0], labs[0].protocol)
        return labs[0]
    if not labs:
        raise _not_found(name, there)
    names = listed(lab.name for lab in labs)
    raise InvalidInput(f"several labs are running: {names} (say which: --lab NAME or TESTBED_LAB)")


def check_protocol(lab: LabRecord, protocol: int) -> None:
    """Raise TestbedError, with what to do, for a lab whose answers this testbed may misread."""
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
    """What to say of a lab whose directory is not to be believed."""
    return (
        f"lab {name}: {RUN_ROOT / name} {why}, so nothing in it is believed "
        f"(older versions gave it to the user; take the lab down: sudo testbed down --lab {name})"
    )


Message: TypeAlias = dict[str, Any]
"""A line of the control socket: `progress`, or the final `result`."""


class LabConnection:
    """One request to a lab. Closing it, also by dying, ends whatever the request started."""

    def __init__(self, lab: LabRecord, timeout_s: float | None = None) -> None:
        """`timeout_s`: how long to wait for each message of the lab; None for as long as it takes."""
        check_protocol(lab, lab.protocol)
        self._lab = lab
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

        Raises TestbedError for an error answer, NoAnswer when nothing came in time.
        """
        try:
            # Turned away already: why is still there to be read.
            with contextlib.suppress(BrokenPipeError):
                send_line(self._socket, {"verb": question.name, "arguments": arguments}, descriptors)
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    message = json.loads(line)
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
        raise TestbedError("the lab ended before it answered, or gave up handing its answer over")

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
    with (
        LabConnection(lab, answer_within_s) as connection,
        # Left to the garbage collector, its end would swallow a Ctrl-C of that moment.
        contextlib.closing(connection.ask(question, descriptors, **arguments)) as messages,
    ):
        for message in messages:
            if "result" in message:
                # What the lab's end was checked to return.
                return cast("AnswerT", message["result"])
    raise TestbedError("the lab ended before it answered")


def ask_with_contents(
    record: LabRecord,
    question: Question[AnswerT],
    contents: Mapping[str, bytes],
    *,
    cluster_files: bool = False,
    **arguments: object,
) -> AnswerT:
    """Hand files' contents over as a file in memory: a request has a limit that they may exceed.

    `cluster_files`: each is a cluster file, whose first document is no object.
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
