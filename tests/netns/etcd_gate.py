"""A reverse proxy before etcd that knows RPCs by name: a real nginx, which refuses some of them or lets them wait."""

import subprocess
from collections.abc import Sequence

from tests.netns.agents import ENDPOINT, Underlay, run, wait_until

ADDRESS = "192.168.8.13"
NOBODY = "192.168.8.99:2379"
"""On the underlay, and nobody has this address."""
KEEP_ALIVE, GRANT = "Lease/LeaseKeepAlive", "Lease/LeaseGrant"


class EtcdGate:
    """In a namespace of its own on the underlay; `refuse` and `hang` may change at any time."""

    def __init__(self, underlay: Underlay) -> None:
        self._directory = underlay.directory / "gate"
        self._directory.mkdir()
        self._netns = underlay.host("gate", ADDRESS)
        self.endpoint = f"http://{ADDRESS}:2379"
        self._write((), ())
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._netns, "nginx", "-c", self._directory / "conf", "-p", self._directory],
                stdout=log,
                stderr=log,
            )
        underlay.undo.callback(self._stop)
        wait_until(self._listens, 30, "nginx listens", lambda: (self._directory / "log").read_text())

    def open(self) -> None:
        """Let everything pass."""
        self.shut()

    def shut(self, refuse: Sequence[str] = (), hang: Sequence[str] = ()) -> None:
        """Refuse these RPCs from now on, or let them wait without an answer; streams that are open go on."""
        before = self._workers()
        self._write(refuse, hang)
        self._process.send_signal(1)
        wait_until(lambda: self._workers() - before, 30, "nginx has read its configuration")

    def _workers(self) -> set[str]:
        return set(run("pgrep", "-P", str(self._process.pid), check=False).stdout.split())

    def _listens(self) -> bool:
        return bool(run("ip", "netns", "exec", self._netns, "ss", "-Hltn", "sport = :2379").stdout)

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _write(self, refuse: Sequence[str], hang: Sequence[str]) -> None:
        closed = "".join(f"location = /etcdserverpb.{name} {{ return 503; }}\n" for name in refuse)
        silent = "".join(f"location = /etcdserverpb.{name} {{ grpc_pass grpc://{NOBODY}; }}\n" for name in hang)
        target = ENDPOINT.removeprefix("http://")
        (self._directory / "conf").write_text(
            f"""daemon off;
error_log stderr;
pid {self._directory}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {self._directory};
    server {{
        listen {ADDRESS}:2379 http2;
        client_body_timeout 1h;
        grpc_read_timeout 1h;
        grpc_send_timeout 1h;
        grpc_connect_timeout 1h;
        location / {{ grpc_pass grpc://{target}; }}
        {closed}{silent}
    }}
}}
"""
        )
