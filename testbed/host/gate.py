"""The gate of a lab with an existing etcd cluster (etcd_gate.py): its start, and the lab's keys when the lab ends."""

import contextlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed.control.client import ask, read_record
from testbed.control.existing_etcd import RECORD, ExistingEtcd
from testbed.control.questions import LEAVE_ETCD
from testbed.control.wire import CONTROL_SOCKET
from testbed.errors import TestbedError
from testbed.plain_files import read_plain

GATE = Path(__file__).with_name("etcd_gate.py")
RECORD_BYTES = 100_000
LEAVE_LIMIT_S = 20.0
GATE_END_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A running gate (etcd_gate.py), which ends with its lab."""

    process: subprocess.Popen[bytes]
    lab_end: socket.socket
    """For the lab; its first message is the ExistingEtcd."""

    def await_end(self) -> None:
        """Wait until it has ended, after its lab."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GATE_END_LIMIT_S)


def open_gate(existing: ExistingEtcd) -> Gate:
    """Start the gate on the host. Raises OSError."""
    lab_end, own_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own_end:
        own_end.send(existing.to_json())
        words = [word for host, port in existing.targets for word in (host, str(port))]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GATE), str(own_end.fileno()), existing.claim.claimant.lab, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(own_end.fileno(),),
            start_new_session=True,
            cwd="/",
        )
    return Gate(process, lab_end)


def leave_existing(rundir: Path) -> None:
    """Have a running lab remove its keys from an existing cluster, before it ends; warn of those that stay."""
    try:
        record = json.loads(read_plain(rundir / RECORD, RECORD_BYTES))
        prefix, endpoints = str(record["prefix"]), ", ".join(record["endpoints"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return
    if not (rundir / CONTROL_SOCKET).exists():
        # It had not begun.
        return
    lab = read_record(rundir)
    try:
        if lab is None:
            raise TestbedError("the lab has died")
        ask(lab, LEAVE_ETCD, answer_within_s=LEAVE_LIMIT_S)
    except TestbedError as failure:
        print(
            f"warning: lab {rundir.name}: its keys below {prefix} in etcd ({endpoints}) stay: {failure} (to remove"
            " them: up and down of this lab while etcd answers)",
            file=sys.stderr,
        )
