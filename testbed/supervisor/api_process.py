"""Starts the lab's API server when it is first asked for, and reports how to reach it.

It is a process of its own, so that its load and its clients' requests do not slow the lab down. `testbed kubeconfig`
makes the listening socket on the host and hands it over, so no process of the host has a socket of the lab.
"""

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from ipaddress import IPv4Address
from pathlib import Path

from testbed.control.answers.lab import ApiAnswer
from testbed.control.questions import API
from testbed.control.server import Request, Verb
from testbed.errors import TestbedError
from testbed.lab.certificates import Authority
from testbed.plain_files import plain, replace_plain
from testbed.processes.readable import readable

LOOPBACK = IPv4Address("127.0.0.1")
DIRECTORY = "api"
KUBECONFIG = "kubeconfig"
NAME = "api"
START_LIMIT_S = 20.0
TOKEN_BYTES = 32


class ApiProcess:
    """The API server of one lab, once started."""

    def __init__(self, lab: str, rundir: Path, owner_uid: int) -> None:
        """`owner_uid`: who may read the kubeconfig, besides root."""
        self._lab = lab
        self._rundir = rundir
        self._owner_uid = owner_uid
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._starting = threading.Lock()

    def verb(self) -> Verb[ApiAnswer]:
        """Return the verb."""
        return Verb(API, self.open)

    def open(self, request: Request) -> ApiAnswer:
        """Return the API server's address and credentials; start it on the client's listening socket if necessary.

        Raises TestbedError.
        """
        with self._starting:
            if self._process is None or self._process.poll() is not None:
                if len(request.streams) != 1:
                    raise TestbedError("kubeconfig: needs a listening socket")
                self._start(request.streams[0])
            return {"port": self._port, "kubeconfig": str(self._directory / KUBECONFIG)}

    @property
    def _directory(self) -> Path:
        return self._rundir / DIRECTORY

    def _start(self, listener: int) -> None:
        with socket.socket(fileno=os.dup(listener)) as given:
            self._port = given.getsockname()[1]
        directory = self._directory
        # The owner may enter it, and reads one file in it.
        directory.mkdir(mode=0o711, exist_ok=True)
        directory.chmod(0o711)
        files = Authority(self._lab).issue(directory, str(directory), NAME, [LOOPBACK])
        token = secrets.token_hex(TOKEN_BYTES)
        replace_plain(directory / "token", token.encode())
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as ready:
            with (
                os.fdopen(writing, "wb") as server_end,
                open(self._rundir / "logs" / "api.log", "ab", opener=plain) as log,
            ):
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "testbed.api", str(self._rundir), str(directory), str(server_end.fileno())],
                    stdin=listener,
                    stdout=log,
                    stderr=log,
                    pass_fds=(server_end.fileno(),),
                    start_new_session=True,
                )
            if not readable([reading], START_LIMIT_S) or not ready.read(1):
                self._process.kill()
                self._process.wait()
                raise TestbedError("the API server did not start (see logs/api.log of the lab)")
        self._write_kubeconfig(directory, Path(files.ca).read_bytes(), token)

    def _write_kubeconfig(self, directory: Path, authority: bytes, token: str) -> None:
        name = f"testbed-{self._lab}"
        server = {
            "server": f"https://{LOOPBACK}:{self._port}",
            "certificate-authority-data": base64.b64encode(authority).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": server}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        path = directory / KUBECONFIG
        replace_plain(path, json.dumps(config, indent=2).encode() + b"\n")
        # In a lab without root there is no other user.
        with contextlib.suppress(PermissionError):
            os.chown(path, self._owner_uid, -1)
