"""A real etcd on loopback: free ports, a data directory of its own, and what an operator can do to it."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdServer:
    """One member; `start` and `stop` may alternate, the data stays."""

    def __init__(self, directory: Path, tls: Sequence[str] = ()) -> None:
        """`tls` are more flags, such as `--cert-file=…`; with any the client port speaks https."""
        self._directory = directory
        self._tls = list(tls)
        self._scheme = "https" if tls else "http"
        self._port, self._peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.etcdctl_flags: list[str] = []
        self.endpoint = f"{self._scheme}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run it and wait until it answers."""
        peer = f"http://127.0.0.1:{self._peer_port}"
        with (self._directory / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "etcd",
                    f"--data-dir={self._directory / 'data'}",
                    f"--listen-client-urls={self.endpoint}",
                    f"--advertise-client-urls={self.endpoint}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                    *self._tls,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, timeout_s=20, what="etcd listens")

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
            timeout=20,
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


class EtcdProxy:
    """A real `etcd grpc-proxy` before an etcd; `start` and `stop` may alternate, the port stays."""

    def __init__(self, directory: Path, target: str) -> None:
        """`target` is the etcd's endpoint."""
        self._directory = directory
        self._target = target
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run it and wait until it listens."""
        with (self._directory / "proxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "etcd",
                    "grpc-proxy",
                    "start",
                    f"--endpoints={self._target}",
                    f"--listen-addr=127.0.0.1:{self._port}",
                    f"--data-dir={self._directory / 'proxy'}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, timeout_s=20, what="the proxy listens")

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
