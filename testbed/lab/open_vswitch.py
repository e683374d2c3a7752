"""Switches of Open vSwitch instead of Linux bridges: `underlay: {switch: ovs}`.

Two daemons per lab, in its own namespaces: ovsdb-server stores the ports, ovs-vswitchd forwards the packets. Its data
path is always the one in user space (`datapath_type=netdev`), so that a lab is the same on every kernel, with or
without the openvswitch module. It reads frames from packet sockets and cannot complete a checksum that the sender left
to its network card; so the offloads of every cable are off (`no_offload`). A killed daemon is restarted; ports are in
the database and return with it. Database and sockets are files inside the lab, and end with it.
"""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mininet.node import Switch

from agent.kernel.kernel import Kernel
from testbed.lab.machine_shell import ShellOnDemand
from testbed.plain_files import plain
from testbed.processes.supervise import RestartPolicy, Supervised

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
COMMAND_LIMIT_S = 25.0
PATIENCE = ("--retry", "--timeout=20")
"""Timeout of ovs-vsctl: a server that is just starting or restarting has no socket yet."""
OFFLOADS = ("tx", "gso", "tso")


def no_offload(interface: str) -> list[str]:
    """Return the command that makes packets leave the interface whole, with their checksums."""
    return ["ethtool", "-K", interface, *(word for name in OFFLOADS for word in (name, "off"))]


def port_behind(table: str, mac: str, names: Mapping[str, str]) -> str | None:
    """Return the port that `ovs-appctl fdb/show` lists for a MAC address; `names` by number. None: not in the table."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 3 and columns[2] == mac.lower():
            return names.get(columns[0])
    return None


class OpenVSwitch:
    """The daemons of one lab."""

    def __init__(self, directory: Path, logs: Path, kernel: Kernel) -> None:
        self._directory = directory
        self._logs = logs
        self._kernel = kernel
        self._database = directory / "conf.db"
        self._socket = f"unix:{directory / 'db.sock'}"
        self.server = Supervised("ovsdb-server", self._launch_server, RestartPolicy(max_delay_s=2.0))
        self.daemon = Supervised("ovs-vswitchd", self._launch_daemon, RestartPolicy(max_delay_s=2.0))

    def start(self) -> None:
        """Create the database and start both. Raises OSError with the program's message."""
        self.start_database()
        self.daemon.start()

    def start_database(self) -> None:
        """Create the database and start its server. Raises OSError with the program's message."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self._database.exists():
            self._run(["ovsdb-tool", "create", str(self._database), str(SCHEMA)])
        self.server.start()
        self._run(["ovs-vsctl", f"--db={self._socket}", *PATIENCE, "--no-wait", "init"])

    def configure(self, words: Sequence[str], why: str) -> None:
        """Run ovs-vsctl with these arguments; return when ovs-vswitchd has applied it. Raises OSError."""
        self._run(["ovs-vsctl", f"--db={self._socket}", *PATIENCE, *words])
        self._kernel.journal.record(["ovs-vsctl", *words], why)

    def port_of(self, bridge: str, mac: str) -> str | None:
        """Return the port behind which a switch knows a MAC address; None if it does not. Raises OSError."""
        columns = ["--format=csv", "--no-headings", "--data=bare", "--columns=ofport,name", "list", "Interface"]
        listed = self._run(["ovs-vsctl", f"--db={self._socket}", *PATIENCE, *columns])
        own = self._run(["ovs-vsctl", f"--db={self._socket}", *PATIENCE, "list-ports", bridge])
        rows = [line.split(",") for line in listed.splitlines()]
        names = {number: name for number, name in rows if name in own.split()}
        return port_behind(self._run(["ovs-appctl", *self._target(), "fdb/show", bridge]), mac, names)

    def _target(self) -> list[str]:
        return ["-t", f"{self._directory}/ovs-vswitchd.{self.daemon.pid}.ctl"]

    def _environment(self) -> dict[str, str]:
        own = str(self._directory)
        return {**os.environ, "OVS_RUNDIR": own, "OVS_LOGDIR": own, "OVS_DBDIR": own}

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False, env=self._environment()
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{' '.join(command)}: no end after {COMMAND_LIMIT_S:g} s") from None
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def _launch_server(self) -> subprocess.Popen[bytes]:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / "db.sock").unlink()
        return self._spawn(["ovsdb-server", str(self._database), f"--remote=p{self._socket}"])

    def _launch_daemon(self) -> subprocess.Popen[bytes]:
        # Without the kernel's data path, which would be loaded into the host's kernel if it has one.
        return self._spawn(["ovs-vswitchd", self._socket, "--disable-system"])

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with open(self._logs / f"{command[0]}.log", "ab", opener=plain) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._environment(),
                start_new_session=True,
            )


class OpenVSwitchSwitch(ShellOnDemand, Switch):
    """A switch of Open vSwitch named as in the cluster file, in the lab's own network namespace."""

    def __init__(
        self, name: str, *, kernel: Kernel, underlay_mtu: int, open_vswitch: OpenVSwitch, **params: Any
    ) -> None:
        self.kernel = kernel
        self.underlay_mtu = underlay_mtu
        self._open_vswitch = open_vswitch
        super().__init__(name, **{**params, "dpid": "0", "inNamespace": False})

    def start(self, _controllers: object) -> None:
        """Create the switch with every cable plugged in, in one transaction."""
        bridge = ["add-br", self.name, "--", "set", "bridge", self.name, "datapath_type=netdev", "fail_mode=standalone"]
        ports = [one.name for one in self.intfList() if one.name not in {"lo", self.name}]
        words = [*bridge, *(word for port in ports for word in ("--", *self._port(port)))]
        self._open_vswitch.configure(words, "a switch of the underlay")
        self.kernel.set_up(self.name, "switch the switch on")

    def plug(self, interface: str) -> None:
        """Plug a cable's end in."""
        self._open_vswitch.configure(self._port(interface), "plug the cable into the switch")

    def unplug(self, interface: str) -> None:
        """Remove the port of a cable's end that is gone."""
        words = ["--if-exists", "del-port", self.name, interface]
        self._open_vswitch.configure(words, "the cable is unplugged from the switch")

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the switch."""
        with contextlib.suppress(OSError):
            self._open_vswitch.configure(["--if-exists", "del-br", self.name], "the switch is removed")

    def _port(self, interface: str) -> list[str]:
        # linux-noop: queueing disciplines belong to the cluster file; otherwise ovs-vswitchd removes them.
        identity = f"@{interface.replace('-', '_')}"
        qos = [
            f"--id={identity}",
            "create",
            "qos",
            "type=linux-noop",
            "--",
            "set",
            "port",
            interface,
            f"qos={identity}",
        ]
        return ["add-port", self.name, interface, "--", *qos]
