"""The process between the lab and one container: creates its private root, starts it, keeps its log, ends with it.

    python -I -S container.py --run SPEC_FD CONTROL_FD     started by the lab for every run of a container
    python -I -S container.py --exec SPEC PID [--tty] -- COMMAND…   one more command in a running container

Standard library only and few imports, because they cost time at every start of a container. SPEC is one JSON document
(`testbed.pods.container_document` writes it): pause_pid, node_pid, share_pid, privileged, user, group, groups,
capabilities, escalation, read_only_root, argv, env, working_dir, directories, files, links, volumes, log, log_bytes,
cgroups.

The container's process is a child in the pod's net, ipc and uts namespaces; its PID namespace is the pod's where
shared, else a new one in which it is PID 1. The two exchange these messages:

    child → parent   "mounted\\n" once its mount namespace exists, then waits for a byte before it continues; afterwards
                     one JSON line {"error", "exit_code"} if it cannot execute, an end of file if it did
    parent → lab     {"pid"}, waits for a byte (the lab opens the mount namespace, through which it can find and end
                     every process of the container, whatever happens to us), then {"running"} or the error

Ends with the container's exit code, 128 + n after signal n, 127 if the program does not exist, 126 if it cannot be
executed, 125 if the container could not be set up.
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from testbed.pods import container_root
from testbed.pods.container_log import CappedLog
from testbed.processes import namespaces as ns
from testbed.processes.readable import readable

EXIT_SETUP_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
MOUNTED = b"mounted\n"
PIPE_READ_BYTES = 65536
NET_IPC_UTS = ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
TIOCSCTTY = 0x540E  # asm-generic/ioctls.h

Spec = Mapping[str, Any]


class Handles(NamedTuple):
    """Descriptors that the child inherits from its parent."""

    pause: int
    node: int
    trees: list[int]
    output: int
    report: int
    go: int
    cgroups: list[int]


class CannotExecute(Exception):
    """The container's command cannot be started; `exit_code` tells why."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: list[str]) -> int:
    """Run a container, or one more command in it."""
    if len(arguments) == 3 and arguments[0] == "--run":
        spec_descriptor, control = int(arguments[1]), int(arguments[2])
        os.set_inheritable(control, False)
        # Closed before anything is started: it may contain what the manifest's author calls a secret.
        with open(spec_descriptor, encoding="utf-8") as file:
            spec = json.load(file)
        return run(spec, control)
    if len(arguments) > 3 and arguments[0] == "--exec" and "--" in arguments:
        end = arguments.index("--")
        with open(arguments[1], encoding="utf-8") as file:
            spec = json.load(file)
        return execute_in(spec, int(arguments[2]), arguments[end + 1 :], "--tty" in arguments[3:end])
    print("error: container: want --run SPEC_FD CONTROL_FD, or --exec SPEC PID [--tty] -- COMMAND…", file=sys.stderr)
    return 2


# Running a container


def run(spec: Spec, control: int) -> int:
    """Start the container and stay until it ends; return its exit code."""
    log = CappedLog(spec["log"], spec["log_bytes"])
    # The lab's own umask would hide the container's root from users other than root.
    os.umask(0o022)
    wakeup = _catch_signals()
    try:
        trees = [container_root.clone_volume(volume) if volume["of"] == "lab" else -1 for volume in spec["volumes"]]
        # Opened here: in the child's PID namespace these numbers mean nothing.
        pause, node = os.pidfd_open(spec["pause_pid"]), os.pidfd_open(spec["node_pid"])
        cgroups = _open_cgroups(spec)
        if spec["share_pid"]:
            ns.setns(pause, ns.CLONE_NEWPID)
        else:
            ns.unshare(ns.CLONE_NEWPID)
    except OSError as error:
        return _report_failure(control, log, _in_words(error), EXIT_SETUP_FAILED)
    output, child_output = os.pipe()
    report, child_report = os.pipe()
    child_go, go = os.pipe()
    child = os.fork()
    if child == 0:
        # Only the parent may hold this end, or its death would go unnoticed.
        os.close(go)
        _be_the_container(spec, Handles(pause, node, trees, child_output, child_report, child_go, cgroups))
    taken = (pause, node, child_output, child_report, child_go, *cgroups, *(tree for tree in trees if tree >= 0))
    for descriptor in taken:
        os.close(descriptor)
    failure = _introduce(control, child, report, go) + _read_until_end(report)
    os.close(report)
    if failure:
        _wait_for(child)
        outcome = json.loads(failure)
        return _report_failure(control, log, outcome["error"], outcome["exit_code"])
    _send(control, {"running": True})
    return _attend(child, output, wakeup, log)


def _introduce(control: int, child: int, report: int, go: int) -> bytes:
    """Let the lab open the child's mount namespace before the child runs anything.

    Returns the start of the child's error if it did not get this far.
    """
    first = os.read(report, len(MOUNTED))
    if first == MOUNTED:
        first = b""
        _send(control, {"pid": child})
        os.read(control, 1)
        with contextlib.suppress(BrokenPipeError):
            os.write(go, b"g")
    os.close(go)
    return first


def _attend(child: int, output: int, wakeup: int, log: CappedLog) -> int:
    """Copy output to the log and forward signals until the child ends; then drain the pipe."""
    ended = os.pidfd_open(child)
    poller = select.poll()
    for descriptor in (output, wakeup, ended):
        poller.register(descriptor, select.POLLIN)
    os.set_blocking(output, False)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if wakeup in ready:
            for number in os.read(wakeup, 64):
                if number in FORWARDED:
                    signal.pidfd_send_signal(ended, number)
        if output in ready and not _copy(output, log):
            poller.unregister(output)
        if ended in ready:
            exit_code = _wait_for(child)
            while _copy(output, log):
                pass
            return exit_code


def _copy(output: int, log: CappedLog) -> bool:
    """Copy one piece of output to the log; return False if there is none now, or the pipe has ended."""
    try:
        data = os.read(output, PIPE_READ_BYTES)
    except BlockingIOError:
        return False
    log.write(data)
    return bool(data)


def _be_the_container(spec: Spec, handles: Handles) -> NoReturn:
    """Become the container, in the child. Never returns; reports failures through `handles.report`."""
    exit_code = EXIT_SETUP_FAILED
    try:
        _restore_signals()
        _move_in(spec, handles)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, standard in ((nothing, 0), (handles.output, 1), (handles.output, 2)):
            os.dup2(source, standard)
        _execute(spec, spec["argv"], handles.cgroups)
    except CannotExecute as error:
        message, exit_code = str(error), error.exit_code
    except OSError as error:
        message = _in_words(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        os.write(handles.report, json.dumps({"error": message, "exit_code": exit_code}).encode())
    os._exit(exit_code)


def _move_in(spec: Spec, handles: Handles) -> None:
    """Enter the pod's namespaces and a private root. Raises OSError."""
    os.setsid()
    ns.setns(handles.pause, NET_IPC_UTS)
    ns.setns(handles.node, ns.CLONE_NEWNS)
    ns.unshare(ns.CLONE_NEWNS)
    ns.make_mounts_private()
    os.write(handles.report, MOUNTED)
    # First PDEATHSIG, then the pipe: from here on we die with our parent; one that died before closed the pipe.
    ns.die_with_parent(signal.SIGKILL)
    if os.read(handles.go, 1) != b"g":
        os._exit(EXIT_SETUP_FAILED)
    _make_root(spec, handles.trees)


def _make_root(spec: Spec, trees: list[int]) -> None:
    """Take the node's volumes before the old root is unmounted, and mount parents first."""
    volumes = spec["volumes"]
    held = [_clone_of_node(volume) if tree < 0 else tree for tree, volume in zip(trees, volumes, strict=True)]
    container_root.build(spec["privileged"])
    container_root.write_files(spec["directories"], spec["files"], spec["links"])
    for tree, volume in sorted(zip(held, volumes, strict=True), key=lambda pair: str(pair[1]["target"])):
        container_root.attach_volume(tree, volume, spec["privileged"])
    if spec["read_only_root"]:
        container_root.make_directory(spec["working_dir"])
        container_root.make_read_only()


def _clone_of_node(volume: Mapping[str, Any]) -> int:
    source, wanted = volume["source"], volume["type"]
    if wanted == "DirectoryOrCreate":
        os.makedirs(source, 0o755, exist_ok=True)
    elif wanted == "FileOrCreate" and not os.path.exists(source):
        os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    if wanted.startswith("Directory") and not os.path.isdir(source):
        raise NotADirectoryError(f"hostPath {source}: not a directory of the node (type {wanted})")
    if wanted.startswith("File") and not os.path.isfile(source):
        raise FileNotFoundError(f"hostPath {source}: not a file of the node (type {wanted})")
    if not os.path.exists(source):
        raise FileNotFoundError(f"hostPath {source}: the node has no such file or directory")
    return container_root.clone_volume(volume)


def _open_cgroups(spec: Spec) -> list[int]:
    """Open the files through which a process comes within the container's limits."""
    return [os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for directory in spec["cgroups"]]


def _execute(spec: Spec, argv: list[str], cgroups: list[int]) -> NoReturn:
    """Drop what a container may not have and execute `argv`. Raises CannotExecute."""
    try:
        for group in cgroups:
            os.write(group, b"0")
        if not os.path.isdir(spec["working_dir"]):
            container_root.make_directory(spec["working_dir"])
        os.chdir(spec["working_dir"])
        os.umask(0o022)
        if not spec["escalation"]:
            ns.no_new_privileges()
        # The bounding set first: without it a change of user ends every capability, and before it none is left.
        if not spec["privileged"]:
            ns.limit_bounding_set(spec["capabilities"])
        _become(spec["user"], spec["group"], spec["groups"])
        if not spec["privileged"]:
            ns.limit_own_capabilities(spec["capabilities"])
    except OSError as error:
        raise CannotExecute(_in_words(error), EXIT_SETUP_FAILED) from error
    # The terminal type comes from the client's terminal.
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    env = {"PATH": DEFAULT_PATH, **terminal, **spec["env"]}
    try:
        os.execvpe(argv[0], argv, env)
    except FileNotFoundError as error:
        where = "" if "/" in argv[0] else f" in PATH {env['PATH']}"
        raise CannotExecute(f"{argv[0]}: no such program{where}", EXIT_NOT_FOUND) from error
    except OSError as error:
        raise CannotExecute(f"{argv[0]}: cannot be executed: {error.strerror}", EXIT_NOT_EXECUTABLE) from error


def _become(user: int | None, group: int | None, groups: list[int]) -> None:
    """Switch to a numeric user and group; without a group, to the user's in /etc/passwd, else 0."""
    if user is None and group is None and not groups:
        return
    if group is None:
        group = _group_of(user or 0)
    os.setgroups(groups)
    os.setgid(group)
    if user is not None:
        os.setuid(user)
    # A change of user or group clears it.
    ns.die_with_parent(signal.SIGKILL)


def _group_of(user: int) -> int:
    with contextlib.suppress(OSError), open("/etc/passwd", encoding="utf-8") as file:
        for line in file:
            fields = line.split(":")
            if len(fields) > 3 and fields[2] == str(user):
                return int(fields[3])
    return 0


# One more command in a running container


def execute_in(spec: Spec, pid: int, argv: list[str], tty: bool) -> int:
    """Run `argv` in all namespaces of the container's process `pid`, with our standard input and output."""
    try:
        cgroups = _open_cgroups(spec)
        ns.enter(pid, ns.CLONE_NEWNS | ns.CLONE_NEWPID | NET_IPC_UTS)
    except OSError as error:
        print(f"error: container: it is not running ({_in_words(error)})", file=sys.stderr)
        return EXIT_SETUP_FAILED
    wakeup = _catch_signals()
    child = os.fork()
    if child == 0:
        _restore_signals()
        exit_code = EXIT_SETUP_FAILED
        try:
            ns.die_with_parent(signal.SIGKILL)
            if tty:
                _take_terminal()
            _execute(spec, argv, cgroups)
        except CannotExecute as error:
            print(f"error: exec: {error}", file=sys.stderr)
            exit_code = error.exit_code
        except OSError as error:
            print(f"error: exec: {_in_words(error)}", file=sys.stderr)
        os._exit(exit_code)
    ended = os.pidfd_open(child)
    while True:
        ready = readable([wakeup, ended])
        if wakeup in ready:
            for number in os.read(wakeup, 64):
                if number in FORWARDED:
                    signal.pidfd_send_signal(ended, number)
        if ended in ready:
            return _wait_for(child)


def _take_terminal() -> None:
    """Make descriptor 0 the controlling terminal of a new session."""
    import fcntl

    os.setsid()
    fcntl.ioctl(0, TIOCSCTTY, 0)


# Common ground


def _catch_signals() -> int:
    """Turn forwarded signals into bytes of a pipe; return its reading end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in FORWARDED:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _restore_signals() -> None:
    """Give the container the signal handling of a fresh process; Python ignores some, and exec keeps that."""
    signal.set_wakeup_fd(-1)
    for number in (*FORWARDED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _wait_for(child: int) -> int:
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _read_until_end(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 4096):
        parts.append(part)
    return b"".join(parts)


def _send(control: int, message: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError):
        os.write(control, json.dumps(message).encode() + b"\n")


def _report_failure(control: int, log: CappedLog, message: str, exit_code: int) -> int:
    log.write(f"error: {message}\n".encode())
    _send(control, {"error": message, "exit_code": exit_code})
    return exit_code


def _in_words(error: OSError) -> str:
    """Describe the failure, with the path if Python has it."""
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
