"""Packets on a bridge must pass the node's packet filter: only there is a pod's reply to a neighbouring pod translated
back to the Service's address.

The kernel does this in every namespace once br_netfilter is loaded. Where that is a module, loading it changes the host
too: its bridges would filter as well, and those of containers and other labs. So the sysctls are set to 0 in every
existing namespace, which restores the earlier behaviour, and the module is removed after the last lab. A record beside
the labs says that it was loaded for them; the next `up` or `down` cleans up after a killed lab or `up`.
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
"""Beside the labs, for root only: a lock, which contains LOADED while the module is loaded for labs."""
LOADED = b"loaded"

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns its error output."""


def run_command(command: Sequence[str]) -> str:
    """Run it; return the first line of its error output, empty on success."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as failure:
        return f"{command[0]}: {failure.strerror}"
    lines = done.stderr.strip().splitlines() or [f"{command[0]}: exit code {done.returncode}"]
    return lines[0] if done.returncode else ""


_claims: list[int] = []
"""Descriptors with which this process keeps the module for a lab that it starts."""


def provide(root: Path = RUN_ROOT, settings: Path = SETTINGS, run: Run = run_command) -> str:
    """Make sure that the kernel filters on bridges; return what is missing in a line, or "".

    The module stays for the lab about to start, until this process ends or calls `put_back`.
    """
    record = None
    # An ordinary user loads nothing.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        record = _hold(root / RECORD, fcntl.LOCK_SH)
        _claims.append(record)
    if settings.is_dir():
        return ""
    # The record first: if we are killed in between, the next run cleans up.
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
    """Yield each network namespace but ours once, whether a process or only a name keeps it."""
    seen = {os.stat("/proc/self/ns/net").st_ino}
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        with contextlib.suppress(OSError):  # its process has ended
            number = path.stat().st_ino
            if number not in seen:
                seen.add(number)
                yield path


def switch_off_in(namespace: Path, settings: Path) -> None:
    """Set the sysctls of that network namespace to 0; skip one that is gone."""

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

    Return why it had to stay, or "".
    """
    while _claims:
        os.close(_claims.pop())
    path = root / RECORD
    if os.geteuid() != 0 or not path.exists():
        return ""
    try:
        record = _hold(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Another process is starting a lab that needs it.
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
        # Another program relies on it by now; from here on it belongs to that program.
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
    """Lock the record, creating it if necessary; closing the descriptor releases it.

    Raises OSError, including BlockingIOError.
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
