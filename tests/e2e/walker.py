"""Runs the cases of walk_cases.py, each in a process of its own, in namespaces in which nothing of the host is.

    python -m tests.e2e.walker RESULTS everything|some

Started in new network, mount, PID and IPC namespaces: /run is empty, no other lab is to be seen, and what `join` or
`leave` would do to a machine is done to nobody's. A process is a fork of this one, which has imported everything.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import testbed
import testbed.command.cli  # registers the verbs
from testbed.command.command_line import verbs
from testbed.control.client import RUN_ROOT, start_ticks
from tests.e2e.walk_cases import LAB, Case, Result, cases

WORKERS = 4
PATIENCE_S = 4.0
END_LIMIT_S = 10.0
ENDLESS = {"ui", "forward", "capture"}
ENDLESS_PATIENCE_S = 1.2
OUTPUT_BYTES = 200_000
CRASH = 3
"""The descriptor behind the standard streams gets a traceback."""


def main(results: str, how_many: str) -> None:
    """Run the walker."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.makedirs("/run/lock")
    for name in list(os.environ):
        if name.startswith(("TESTBED", "SUDO", "FLANNELD")):
            del os.environ[name]
    _import_everything()
    for lab in (LAB, "stopped"):
        subprocess.run([sys.executable, "-m", "testbed", "up", "two_nodes", "--lab", lab], check=True)
    _make_labs_that_do_not_answer()
    todo = cases(verbs, everything=how_many == "everything")
    last = [(number, case) for number, case in enumerate(todo) if case.verb == "down"]
    others = [(number, case) for number, case in enumerate(todo) if case.verb != "down"]
    workers = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            _work(others[number::WORKERS], Path(f"{results}.{number}"))
        workers.append(pid)
    for pid in workers:
        os.waitpid(pid, 0)
    pid = os.fork()
    if pid == 0:
        _work(last, Path(f"{results}.last"))
    os.waitpid(pid, 0)


def _import_everything() -> None:
    for module in pkgutil.walk_packages(testbed.__path__, "testbed."):
        # Programs of their own, and what only pytest loads.
        if module.name.rpartition(".")[2] not in ("__main__", "pytest_plugin", "container", "echo_server", "relay"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    importlib.import_module("testbed.__main__")


def _make_labs_that_do_not_answer() -> None:
    for name, record in {
        "dead": {"pid": 4_000_000, "start_ticks": 1, "owner": 0},
        "silent": {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "owner": 0},
    }.items():
        (RUN_ROOT / name).mkdir(mode=0o755)
        (RUN_ROOT / name / "lab.json").write_text(json.dumps(record))
    (RUN_ROOT / "garbled").mkdir(mode=0o755)
    (RUN_ROOT / "garbled" / "lab.json").write_text("[[[")
    (RUN_ROOT / "a-file").write_text("")
    (RUN_ROOT / "a-link").symlink_to(RUN_ROOT / LAB)
    first = json.loads((RUN_ROOT / "stopped" / "lab.json").read_text())["pid"]
    supervisor, *_ = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(supervisor), signal.SIGSTOP)


def _work(mine: Sequence[tuple[int, Case]], results: Path) -> NoReturn:
    try:
        os.setsid()
        with results.open("w") as file:
            for number, case in mine:
                file.write(json.dumps({"number": number, "result": asdict(_run(case))}) + "\n")
                file.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _run(case: Case) -> Result:
    pipes = {name: os.pipe() for name in ("out", "err", "crash")}
    started = time.monotonic()
    # A signal waits until the program begins.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    pid = os.fork()
    if pid == 0:
        _become(case, {name: write for name, (_, write) in pipes.items()})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for _, write in pipes.values():
        os.close(write)
    reads = {read: name for name, (read, _) in pipes.items()}
    texts = dict.fromkeys(pipes, b"")
    process = os.pidfd_open(pid)
    patience_s = ENDLESS_PATIENCE_S if case.verb in ENDLESS or case.lab == "stopped" else PATIENCE_S
    asked = hung = signalled = False
    open_ones = set(reads)
    try:
        while not select.select([process], [], [], 0)[0]:
            now = time.monotonic() - started
            if case.signal is not None and not signalled and now >= case.signal[1]:
                signal.pidfd_send_signal(process, case.signal[0])
                signalled = True
            if now > patience_s and not asked:
                signal.pidfd_send_signal(process, signal.SIGINT)
                asked = True
            if now > patience_s + END_LIMIT_S:
                hung = True
                os.killpg(pid, signal.SIGKILL)
            for read in select.select([process, *open_ones], [], [], 0.05)[0]:
                if read in reads:
                    part = os.read(read, 65536)
                    texts[reads[read]] += part[: OUTPUT_BYTES - len(texts[reads[read]])]
                    if not part:
                        open_ones.discard(read)
        for read, name in reads.items():
            os.set_blocking(read, False)
            with contextlib.suppress(BlockingIOError):
                texts[name] += os.read(read, OUTPUT_BYTES)
    finally:
        os.close(process)
        for read in reads:
            os.close(read)
    _, status = os.waitpid(pid, 0)
    out, err, crash = (texts[name].decode(errors="replace") for name in ("out", "err", "crash"))
    took_s = round(time.monotonic() - started, 2)
    return Result(os.waitstatus_to_exitcode(status), out[:5000], err[:20_000], crash, took_s, asked, hung)


def _become(case: Case, pipes: dict[str, int]) -> NoReturn:
    """Become `testbed` with these arguments, in the child."""
    code = 70
    try:
        os.setsid()
        os.chdir(os.environ["WALK_DIRECTORY"])
        os.environ["TESTBED_LAB"] = case.lab
        os.environ.update(case.environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _set_streams(case.streams, pipes)
        if case.limit is not None:
            which, value = case.limit
            resource.setrlimit(which, (value, value))
        sys.argv = ["testbed", *case.verb.split(), *case.words]
        code = _testbed()
    finally:
        os._exit(code)


def _testbed() -> int:
    try:
        # As at its start: it was imported before.
        program = sys.modules["testbed.__main__"]
        program._open_standard_streams()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        except KeyboardInterrupt:
            return 130
        program.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:
        os.write(CRASH, traceback.format_exc().encode(errors="replace")[-4000:])
        return 1
    return 0


def _set_streams(how: str, pipes: dict[str, int]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    ours = [os.dup(descriptor) for descriptor in (null, pipes["out"], pipes["err"], pipes["crash"])]
    for target, source in enumerate(ours):
        os.dup2(source, target)
    os.closerange(CRASH + 1, max(ours) + 1)
    if how in ("full output", "full errors"):
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1 if how == "full output" else 2)
    if how == "no reader":
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
    closed = {"closed input": (0,), "closed output": (1,), "closed errors": (2,), "all closed": (0, 1, 2)}
    for descriptor in closed.get(how, ()):
        os.close(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
