"""Packets on a bridge must pass the node's packet filter: only there is a pod's answer turned round that goes to a pod
beside it as the answer of a Service.

The kernel does so in every namespace once it has br_netfilter. Where that is a module, loading it changes the host too:
its bridges would filter as well, and those of containers and other labs. So the values are set to 0 in every namespace
that there is, which means what it was before there were any, and the module is removed when the last lab has ended. A
record among the labs says that it was loaded for them; what a killed lab or `up` left is put right by the next `up` or
`down`.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from testbed.control.client import RUN_ROOT
from testbed.host.lab_process import any_lab_runs
from testbed.processes.namespaces import CLONE_NEWNET, in_new_thread, setns

SETTINGS = Path("/proc/sys/net/bridge")
CALLS = ("bridge-nf-call-arptables", "bridge-nf-call-ip6tables", "bridge-nf-call-iptables")
MODULE = "br_netfilter"
RECORD = f".{MODULE}"
"""Beside the labs, for root alone: a lock, and LOADED in it while the module was loaded for labs."""
LOADED = b"loaded"

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns what it complained of."""


def run_command(command: Sequence[str]) -> str:
    """Run it; the first line of its complaint, empty when it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as failure:
        return f"{command[0]}: {failure.strerror}"
    lines = done.stderr.strip().splitlines() or [f"{command[0]}: exit code {done.returncode}"]
    return lines[0] if done.returncode else ""


_claims: list[int] = []
"""Descriptors by which this process holds the module for a lab that it starts."""


def provide(root: Path = RUN_ROOT, settings: Path = SETTINGS, run: Run = run_command) -> str:
    """Make sure that the kernel can do it; returns what is missing in a line, empty when nothing is.

    The module stays for a lab that is about to start, until this process ends or calls `put_back`.
    """
    record = None
    # An ordinary user loads nothing.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        record = _hold(root / RECORD, fcntl.LOCK_SH)
        _claims.append(record)
    if settings.is_dir():
        return ""
    # First the record: one that is killed in between leaves it to the next.
    _write(record, LOADED)
    why = run(["modprobe", MODULE]) or f"no {SETTINGS}"
    if not settings.is_dir():
        _write(record, b"")
        what = "this kernel cannot filter on bridges, which Services and NetworkPolicies need"
        return f"environment: {what} (got {why}; want {MODULE})"
    _switch_off(settings)
    for namespace in other_network_namespaces():
        switch_off_in(namespace, settings)
    return ""


def other_network_namespaces() -> Iterator[Path]:
    """Yield each network namespace but ours once, whether a process or only a name holds it."""
    seen = {os.stat("/proc/self/ns/net").st_ino}
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        with contextlib.suppress(OSError):  # its process has ended
            number = path.stat().st_ino
            if number not in seen:
                seen.add(number)
                yield path


def switch_off_in(namespace: Path, settings: Path) -> None:
    """Set the values of that network namespace to 0; one that has ended has none."""

    def visit(descriptor: int) -> None:
        setns(descriptor, CLONE_NEWNET)
        _switch_off(settings)

    with contextlib.suppress(OSError):
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            in_new_thread(lambda: visit(descriptor))
        finally:
            os.close(descriptor)


def _switch_off(settings: Path) -> None:
    for name in CALLS:
        (settings / name).write_text("0\n")


def put_back(
    root: Path = RUN_ROOT,
    settings: Path = SETTINGS,
    run: Run = run_command,
    labs_run: Callable[[], bool] = any_lab_runs,
) -> str:
    """Remove the module if it was loaded for labs and none runs or starts any more.

    Returns why it had to stay, empty otherwise.
    """
    while _claims:
        os.close(_claims.pop())
    path = root / RECORD
    if os.geteuid() != 0 or not path.exists():
        return ""
    try:
        record = _hold(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Another process starts a lab that needs it.
        return ""
    try:
        if os.pread(record, len(LOADED), 0) != LOADED:
            path.unlink()
        elif not labs_run():
            return _unload(path, settings, run)
        return ""
    finally:
        os.close(record)


def _unload(record: Path, settings: Path, run: Run) -> str:
    changed = [name for name in CALLS if _value(settings / name) not in ("", "0")]
    if changed:
        # Another program relies on it by now; from here on it is that program's.
        record.unlink()
        return f"kernel module {MODULE} stays loaded: net.bridge.{changed[0]} was changed since the lab loaded it"
    why = run(["rmmod", MODULE])
    if settings.is_dir():
        return f"kernel module {MODULE} stays loaded ({why}); the next up or down tries again"
    record.unlink()
    return ""


def _value(setting: Path) -> str:
    try:
        return setting.read_text().strip()
    except OSError:
        return ""


def _hold(path: Path, how: int) -> int:
    """Lock the record, made where it is missing; closing the descriptor lets go of it.

    Raises OSError, among them BlockingIOError.
    """
    while True:
        record = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(record, how)
            # Its last holder may have removed it between our two calls.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(record)):
                return record
        except BaseException:
            os.close(record)
            raise
        os.close(record)


def _write(record: int | None, text: bytes) -> None:
    if record is not None:
        os.ftruncate(record, 0)
        os.pwrite(record, text, 0)
