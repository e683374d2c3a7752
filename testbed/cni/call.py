"""Runs one plugin inside a node: its network, its files, a time limit."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.cni.answer import Call
from testbed.places import SYSTEM_PATH
from testbed.processes import namespaces as ns

KEPT_BYTES = 1_000_000
"""Of what a plugin prints; the rest is read and dropped."""
READ_BYTES = 65536
DYING_S = 1.0


def find_program(name: str, directories: Sequence[str]) -> str | None:
    """Return the first program of that name in the directories, as a plugin's `type` is looked up."""
    places = (Path(directory) / name for directory in directories)
    return next((str(place) for place in places if place.is_file()), None)


def call_plugin(
    plugin: str,
    command: str,
    directories: Sequence[str],
    parameters: Mapping[str, str],
    config: Mapping[str, Any],
    limit_s: float,
) -> Call:
    """Execute a plugin in the calling thread's namespaces; `config` goes to its standard input."""
    stdin, started = json.dumps(config), time.monotonic()

    def ended(code: int | None, out: bytes = b"", err: bytes = b"", failure: str = "") -> Call:
        took = time.monotonic() - started
        shown = "" if command == "VERSION" else stdin
        return Call(
            command, plugin, shown, code, out.decode(errors="replace"), err.decode(errors="replace"), took, failure
        )

    program = find_program(plugin, directories)
    if program is None:
        return ended(None, failure=f"no such plugin (got {plugin}; want a program in {', '.join(directories)})")
    environment = {
        **os.environ,
        # Plugins call iptables, nft and others.
        "PATH": SYSTEM_PATH,
        **parameters,
        "CNI_COMMAND": command,
        "CNI_PATH": ":".join(directories),
    }
    with contextlib.ExitStack() as opened:
        descriptor = os.memfd_create("request")
        opened.callback(os.close, descriptor)
        os.write(descriptor, stdin.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            process = subprocess.Popen(
                [program],
                stdin=descriptor,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return ended(None, failure=f"{program} cannot be run ({error.strerror})")
        said = _read_until_end(process, started + limit_s)
        if said is None:
            _kill(process)
            return ended(None, failure=f"did not end within {limit_s:g} s, and was killed")
        return ended(process.returncode, *said)


def _read_until_end(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes] | None:
    """Return standard output and error once both are closed and the process has ended; None at the deadline."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with process.stdout, process.stderr, selectors.DefaultSelector() as open_ends:
        for descriptor in kept:
            open_ends.register(descriptor, selectors.EVENT_READ)
        while open_ends.get_map():
            ready = open_ends.select(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return None
            for key, _ in ready:
                part = os.read(key.fd, READ_BYTES)
                if part:
                    kept[key.fd] += part[: KEPT_BYTES - len(kept[key.fd])]
                else:
                    open_ends.unregister(key.fd)
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        out, err = kept.values()
        return bytes(out), bytes(err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the plugin and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(DYING_S)


def enter_node(pid: int) -> None:
    """Move the calling thread, which is to end soon, to a node's network and files. Raises OSError."""
    # The thread needs its own root to enter another mount namespace.
    ns.unshare(ns.CLONE_FS)
    ns.enter(pid, ns.CLONE_NEWNS | ns.CLONE_NEWNET)
