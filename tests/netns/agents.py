"""Agents alone in bare network namespaces: an underlay of veths, a real etcd, agents as processes, pods made by hand.

No Mininet and no testbed here: this is how somebody would run the agent on plain machines.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
ETCD_ADDRESS = "192.168.8.11"
ENDPOINT = f"http://{ETCD_ADDRESS}:2379"
NETWORK = '{"Network":"10.0.0.0/16","SubnetLen":24,"Backend":{"Type":"udp"}}'
HEALTH_PORT = 8286


MUTANT, MUTANT_LAUNCHER = os.environ.get("TESTBED_TEST_MUTANT"), ROOT / "tests" / "mutants" / "run_agent.py"
"""Every agent is this one of tests/mutants instead: a test that does not mind has missed what it is about."""


def run(
    *command: str, check: bool = True, timeout_s: float = 60, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure that is checked shows what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_until(holds: Callable[[], T], timeout_s: float, what: str, last_seen: Callable[[], object] = str) -> T:
    """Poll until `holds` is true and return its value; else fail with `what` and what was last seen."""
    deadline = time.monotonic() + timeout_s
    late = False
    while not (value := holds()):
        if late:
            raise AssertionError(f"not within {timeout_s} s: {what}\nlast seen: {last_seen()}")
        late = time.monotonic() > deadline
        time.sleep(0.05)
    return value


@dataclass
class Agent:
    """One agent process in the namespace of its node."""

    netns: str
    name: str
    directory: Path
    argv: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(init=False)
    health_port: int = HEALTH_PORT

    @property
    def subnet_file(self) -> Path:
        return self.directory / "subnet.env"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.argv, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def end(self, how: signal.Signals = signal.SIGKILL, timeout_s: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout_s)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of the agent's own HTTP server; status 0 when it does not answer."""
        url = f"http://127.0.0.1:{self.health_port}{path}"
        reply = run("ip", "netns", "exec", self.netns, "curl", "-s", "-m8", "-w", "\n%{http_code}", url, check=False)
        body, _, status = reply.stdout.rpartition("\n")
        return int(status or 0), body

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.get("/state")[1])
        return state

    def wait_ready(self, timeout_s: float = 30) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}\n{self.log}"
            return self.get("/readyz")[0] == 200

        wait_until(ready, timeout_s, f"{self.name} is ready", lambda: f"{self.get('/readyz')}\n{self.log}")

    def subnet(self) -> str:
        return str(self.state()["lease"]["subnet"])


class Underlay:
    """A switch in a namespace of its own with etcd on one port and a namespace per node on the others."""

    def __init__(self, directory: Path, prefix: str, undo: ExitStack) -> None:
        self.directory = directory
        self._prefix = prefix
        self.undo = undo
        self._etcd: subprocess.Popen[bytes] | None = None
        self.switch = self.namespace("switch")
        self.ip(self.switch, "link add uplink type bridge")
        self.ip(self.switch, "address add 192.168.8.10/24 dev uplink")
        self.ip(self.switch, "link set uplink up")
        self.etcd_netns = self.host("etcd", ETCD_ADDRESS)

    def ip(self, netns: str, words: str) -> str:
        return run("ip", "-n", netns, *words.split()).stdout

    def namespace(self, name: str) -> str:
        netns = f"{self._prefix}{name}"
        run("ip", "netns", "add", netns)
        self.undo.callback(run, "ip", "netns", "delete", netns, check=False)
        self.ip(netns, "link set lo up")
        return netns

    def host(self, name: str, address: str, mtu: int = 1500) -> str:
        """Create a namespace with an `eth0` on the switch and a default route that leads nowhere."""
        netns = self.namespace(name)
        self.connect(netns, self.switch, "uplink", name, mtu)
        self.ip(netns, f"address add {address}/24 dev eth0")
        self.ip(netns, "route add default via 192.168.8.10")
        return netns

    def connect(self, netns: str, switch: str, bridge: str, port: str, mtu: int) -> None:
        self.ip(switch, f"link add name {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {netns}")
        self.ip(switch, f"link set dev {port} master {bridge} up")
        self.ip(netns, "link set eth0 up")

    def start_etcd(self, *flags: str, program: str = "etcd") -> None:
        """Start etcd and wait until it answers; data stays from start to start."""
        data, url = self.directory / "etcd", f"http://{ETCD_ADDRESS}"
        with (self.directory / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    self.etcd_netns,
                    program,
                    "--name=e",
                    f"--data-dir={data}",
                    f"--listen-client-urls={url}:2379",
                    f"--advertise-client-urls={url}:2379",
                    f"--listen-peer-urls={url}:2380",
                    f"--initial-advertise-peer-urls={url}:2380",
                    f"--initial-cluster=e={url}:2380",
                    # The disk may be busy; what a killed etcd wrote is in the kernel's cache.
                    "--unsafe-no-fsync",
                    *flags,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.undo.callback(self.stop_etcd)
        wait_until(lambda: self.etcdctl("get", "x", check=False).returncode == 0, 30, "etcd answers")

    def stop_etcd(self) -> None:
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait(10)
            self._etcd = None

    def pause_etcd(self) -> None:
        """Let etcd accept connections and answer nothing, as a machine that hangs does."""
        assert self._etcd is not None
        self._etcd.send_signal(signal.SIGSTOP)

    def resume_etcd(self) -> None:
        """Let a paused etcd go on."""
        assert self._etcd is not None
        self._etcd.send_signal(signal.SIGCONT)

    def etcdctl(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.etcd_netns, "env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={ENDPOINT}"]
        limit = "10s" if check else "2s"
        return run(*command, f"--dial-timeout={limit}", f"--command-timeout={limit}", *words, check=check, stdin=stdin)

    def write_config(self, config: str = NETWORK) -> None:
        self.etcdctl("put", "/coreos.com/network/config", config)

    def dump(self) -> dict[str, dict[str, object]]:
        """Return every key below the prefix, in the form of the vectors."""
        answer = json.loads(self.etcdctl("get", "--prefix", "/coreos.com/network", "-w=json").stdout)
        return {
            base64.b64decode(pair["key"]).decode(): {
                "value": base64.b64decode(pair["value"]).decode(),
                "has_lease": bool(pair.get("lease")),
            }
            for pair in answer["kvs"]
        }

    def leases(self) -> dict[str, str]:
        """Return every key below `subnets` and its value."""
        lines = self.etcdctl("get", "--prefix", "/coreos.com/network/subnets/").stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def agent(self, name: str, address: str, *flags: str, pinned: str | None = None, start: bool = True) -> Agent:
        """Create a node with an agent. `pinned` is a previous subnet such as `10.0.46.1/24`."""
        netns = self.host(name, address)
        directory = self.directory / name
        directory.mkdir()
        if pinned:
            (directory / "subnet.env").write_text(f"FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET={pinned}\n")
        argv = agent_command(netns, directory, f"--node-name={name}", f"--healthz-port={HEALTH_PORT}", *flags)
        agent = Agent(netns, name, directory, argv)
        if start:
            agent.start()
            self.undo.callback(agent.end)
        return agent

    def pod(self, agent: Agent, name: str, address: str) -> str:
        """Create a namespace on the node's docker0, as dockerd would make one; `address` with its prefix length."""
        netns = self.namespace(f"{agent.name}-{name}")
        mtu = int(dict(line.split("=") for line in agent.subnet_file.read_text().split())["FLANNEL_MTU"])
        self.connect(netns, agent.netns, "docker0", f"veth-{name}", mtu)
        self.ip(netns, f"address add {address} dev eth0")
        gateway = address.rpartition(".")[0] + ".1"
        self.ip(netns, f"route add default via {gateway}")
        return netns


def agent_command(netns: str, directory: Path, *flags: str) -> tuple[str, ...]:
    """Return the command of an agent in a namespace; flags given later win."""
    return (
        # Each with a key of its own: they share this machine's /run.
        "ip",
        "netns",
        "exec",
        netns,
        "env",
        f"WIREGUARD_KEY_FILE={directory / 'wgkey'}",
        sys.executable,
        *(("-m", "agent") if MUTANT is None else (str(MUTANT_LAUNCHER), MUTANT)),
        f"--etcd-endpoints={ENDPOINT}",
        f"--subnet-file={directory / 'subnet.env'}",
        "--ip-masq",
        "--bridge=docker0",
        f"--docker-opts-file={directory / 'docker_opts.env'}",
        "--healthz-ip=127.0.0.1",
        "--subnet-lease-ttl=30s",
        *(() if any(flag.startswith("--iface") for flag in flags) else ("--iface=eth0",)),
        *flags,
    )


def ping(netns: str, address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Send one echo request, and wait up to two seconds for the reply."""
    return run("ip", "netns", "exec", netns, "ping", "-n", "-c1", "-W2", *flags, address, check=False)
