"""An etcd of three members on an underlay of namespaces, one machine for each."""

import json
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.netns.agents import Underlay, run, wait_until

ADDRESSES = ("192.168.8.12", "192.168.8.13", "192.168.8.14")


class EtcdMembers:
    """Three members in namespaces of their own; `stop` and `start` may alternate, data stays."""

    def __init__(self, underlay: Underlay) -> None:
        self._directory: Path = underlay.directory
        self._netns = [underlay.host(f"m{number}", address) for number, address in enumerate(ADDRESSES)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(ADDRESSES)
        self._undo: ExitStack = underlay.undo
        self.endpoints = ",".join(f"http://{address}:2379" for address in ADDRESSES)
        self._undo.callback(self.stop, range(len(ADDRESSES)))
        self.start(range(len(ADDRESSES)))

    def start(self, members: Sequence[int]) -> None:
        """Run them and wait until all answer."""
        cluster = ",".join(f"m{number}=http://{address}:2380" for number, address in enumerate(ADDRESSES))
        for number in members:
            url = f"http://{ADDRESSES[number]}"
            command = [
                "ip",
                "netns",
                "exec",
                self._netns[number],
                "etcd",
                f"--name=m{number}",
                f"--data-dir={self._directory / f'm{number}'}",
                f"--listen-client-urls={url}:2379",
                f"--advertise-client-urls={url}:2379",
                f"--listen-peer-urls={url}:2380",
                f"--initial-advertise-peer-urls={url}:2380",
                f"--initial-cluster={cluster}",
                # Three members share one disk here, whose fsync would elect another leader every few seconds.
                "--unsafe-no-fsync",
            ]
            with (self._directory / f"m{number}.log").open("ab") as log:
                self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: self.etcdctl("get", "x", check=False).returncode == 0, 60, "etcd answers")

    def stop(self, members: Sequence[int]) -> None:
        """Kill them."""
        for number in members:
            process, self._processes[number] = self._processes[number], None
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)

    def leader(self) -> int:
        """Return the number of the member that leads."""
        for status in json.loads(self.etcdctl("endpoint", "status", "-w=json").stdout):
            if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
                host = status["Endpoint"].removeprefix("http://").partition(":")[0]
                return ADDRESSES.index(host)
        raise AssertionError("etcd has no leader")

    def etcdctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run etcdctl on the first member that runs."""
        there = next((number for number, process in enumerate(self._processes) if process is not None), 0)
        command = ["ip", "netns", "exec", self._netns[there], "env", "ETCDCTL_API=3", "etcdctl"]
        return run(*command, f"--endpoints={self.endpoints}", "--command-timeout=5s", *words, check=check)

    def leases(self) -> dict[str, str]:
        """Return every key below `subnets` and its value."""
        lines = self.etcdctl("get", "--prefix", "/coreos.com/network/subnets/").stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def etcd_leases(self) -> int:
        """Return how many etcd leases there are, with keys or without."""
        return len(self.etcdctl("lease", "list").stdout.splitlines()) - 1
