"""A real etcd on loopback: free ports, a data directory of its own, and what an operator can do to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.errors import RegistryUnavailable
from agent.etcd.registry import Registry
from tests.waiting import wait_until

ACCESS_CONTROL = (
    "user add root:secret",
    "role add root",
    "user grant-role root root",
    "user add node:pass",
    "role add flannel",
    "role grant-permission flannel --prefix=true readwrite /coreos.com/network",
    "user grant-role node flannel",
    "auth enable",
)


def answers(registry: Registry) -> bool:
    """Return whether the registry's etcd answers now."""
    try:
        registry.list_leases()
    except RegistryUnavailable:
        return False
    return True


def access_control(etcdctl: Callable[..., str]) -> None:
    """Enable access control, with the user `node` for agents."""
    for command in ACCESS_CONTROL:
        etcdctl(*command.split())


def jwt_option(directory: Path, life: str) -> str:
    """Return the option for tokens that etcd signs and that live for e.g. `10m`."""
    key, public = directory / "jwt.key", directory / "jwt.pub"
    for command in (["genrsa", "-out", str(key), "2048"], ["rsa", "-in", str(key), "-pubout", "-out", str(public)]):
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=20)
    return f"--auth-token=jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl={life}"


def free_ports(count: int) -> list[int]:
    """Return so many different TCP ports of 127.0.0.1 that are free now."""
    with contextlib.ExitStack() as undo:
        probes = [undo.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    return free_ports(1)[0]


class EtcdServer:
    """One member; `start` and `stop` may alternate, the data stays."""

    def __init__(self, directory: Path, tls: Sequence[str] = (), program: str = "etcd") -> None:
        """`tls` are more flags, such as `--cert-file=…`; with any the client port speaks https."""
        self._directory = directory
        self._program = program
        self._tls = list(tls)
        self._scheme = "https" if tls else "http"
        self._port, self._peer_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self.etcdctl_flags: list[str] = []
        self.flags: list[str] = []
        """More of etcd's own, from the next start on."""
        self.endpoint = f"{self._scheme}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run it and wait until it answers."""
        peer = f"http://127.0.0.1:{self._peer_port}"
        with (self._directory / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--data-dir={self._directory / 'data'}",
                    f"--listen-client-urls={self.endpoint}",
                    f"--advertise-client-urls={self.endpoint}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                    *self._tls,
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, timeout_s=60, what="etcd listens")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it: it keeps its connections but answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it after `pause`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl and return its output; fail the test if it fails."""
        done = subprocess.run(
            ["etcdctl", f"--endpoints={self.endpoint}", *self.etcdctl_flags, *arguments],
            env=os.environ | {"ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def revision(self) -> int:
        """Return the revision of the store."""
        status: Any = json.loads(self.etcdctl("endpoint", "status", "-w", "json"))
        revision: int = status[0]["Status"]["header"]["revision"]
        return revision

    def leases(self) -> list[str]:
        """Return the ids of all etcd leases, as etcdctl prints them."""
        return [line for line in self.etcdctl("lease", "list").splitlines() if not line.startswith("found")]

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "etcd.log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


FRONTS = ("grpc-proxy", "gateway")
"""etcd's own programs that stand before an etcd."""


def front_command(kind: str, target: str, address: str, directory: Path, program: str = "etcd") -> list[str]:
    """Return the command of an `etcd grpc-proxy` or `etcd gateway` at `address` before the etcd at `target`."""
    if kind == "gateway":
        # A gateway passes bytes; after a minute by default it tries again an etcd that was down.
        return [
            program,
            "gateway",
            "start",
            f"--endpoints={target.rpartition('/')[2]}",
            f"--listen-addr={address}",
            "--retry-delay=1s",
        ]
    # From 3.5.30 on the proxy connects to the address it advertises, and exits if nothing answers there.
    own = [f"--listen-addr={address}", f"--advertise-client-url={address}", f"--data-dir={directory / 'proxy'}"]
    return [program, "grpc-proxy", "start", f"--endpoints={target}", *own]


class EtcdProxy:
    """A real `etcd grpc-proxy` or `etcd gateway` before an etcd; `start` and `stop` may alternate, the port stays."""

    def __init__(self, directory: Path, target: str, kind: str = "grpc-proxy", program: str = "etcd") -> None:
        """`target` is the etcd's endpoint."""
        self._directory = directory
        self._target = target
        self._kind = kind
        self._program = program
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run it and wait until it listens."""
        with (self._directory / "proxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                front_command(
                    self._kind, self._target, f"127.0.0.1:{self._port}", self._directory, program=self._program
                ),
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, timeout_s=60, what="the proxy listens")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "proxy.log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
