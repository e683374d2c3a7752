"""One node of the lab: a machine of the underlay with an agent and a bridge for its pods."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from agent.kernel.kernel import Kernel
from agent.kernel.monitor import Monitor
from agent.lease import Subnet
from agent.netconfig.config import NetworkConfig
from agent.node.subnet_env import SubnetEnv, read_env, write_subnet_env
from testbed.cluster.agent_words import agent_words, flannel_flags
from testbed.cluster.cluster_document import AgentReady, AgentSpec, CniSpec
from testbed.cluster.device_names import BRIDGE, OVERLAY_DEVICES
from testbed.cni.files import bridge_of
from testbed.control.options import MACHINES
from testbed.errors import NoSubnetYet
from testbed.lab.certificates import TlsFiles
from testbed.lab.clock import now
from testbed.lab.etcd import enter_machine, http_get
from testbed.lab.link_watch import LinkWatch
from testbed.lab.notices import SOCKET
from testbed.lab.pod_guard import PodGuard
from testbed.plain_files import plain
from testbed.processes.namespaces import in_network_of
from testbed.processes.supervise import Process, RestartPolicy, Supervised, last_line, last_words
from testbed.processes.threads import in_background
from testbed.processes.warm_parent import WarmParent

HEALTH_PORT = 8286
SUBNET_FILE = "flannel/subnet.env"
"""Below the node's /run."""
JOURNAL = "/run/journal.jsonl"
LONGEST_WAIT_S = 2.0
"""Longest delay before a restart of an agent that keeps ending: its node's packets wait as long."""
LEASE_TTL = "30s"
LEAVE_GRACE_S = 5.0
READY_POLL_S = 0.2
AgentState = dict[str, Any]
"""The agent's own state (/state), as it reports it."""
OURS = (sys.executable, "-m", "agent")


def parent_of_agents() -> WarmParent:
    """Return the parent of our agents, which has imported their modules."""
    return WarmParent([sys.executable, "-m", "testbed.processes.agent_parent"], {**os.environ, "PYTHONUNBUFFERED": "1"})


def uplink_of(node: str) -> str:
    """Return the name of a node's interface on the underlay."""
    return f"{node}-eth0"


@contextlib.contextmanager
def namespaces_of(pid: int) -> Iterator[list[int]]:
    """Yield descriptors of a process's network and mount namespaces. Raises OSError."""
    with contextlib.ExitStack() as opened:
        found = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt")]
        for descriptor in found:
            opened.callback(os.close, descriptor)
        yield found


class LabNode:
    """A machine of the underlay that runs an agent; pods see it as their host."""

    def __init__(
        self,
        *,
        name: str,
        address: IPv4Address,
        ipv6_address: IPv6Address | None,
        pid: int,
        kernel: Kernel,
        guard: PodGuard,
        directory: Path,
        agent: AgentSpec,
        cni: CniSpec | None,
        expected: bool,
        labels: Mapping[str, str],
        datapath: str,
        overlay_device: str | None,
        etcd_endpoints: str,
        etcd_prefix: str,
        etcd_login: Mapping[str, str],
        on_event: Callable[[str, str, str, str], None],
        warm_agents: WarmParent,
    ) -> None:
        self.name = name
        self.created_at = now()
        self.address = address
        self.ipv6_address = ipv6_address
        """On the underlay; None if that has only IPv4."""
        self.pid = pid
        """A process with the node's network and mount namespaces."""
        self.kernel = kernel
        self.guard = guard
        """Its rules for packets from pods."""
        self.cni = cni
        """The plugins that make its pods' networks, and the bridge; None: the lab does."""
        self.bridge = BRIDGE if cni is None else bridge_of(cni)
        """The bridge that its pods are attached to; None if their plugins make none."""
        self.rundir = directory / MACHINES / name
        self.run = self.rundir / "run"
        """The directory that the node sees as /run."""
        self.logs = directory / "logs"
        self.log = self.logs / f"agent-{name}.log"
        self.expected = expected
        """False after `up --no-agent`: the user runs the agent by hand."""
        self.labels = labels
        """Those of the cluster file."""
        self.datapath = datapath
        """The data path, as in the agent's --datapath."""
        self.offload = False
        """The agent's --offload."""
        self.overlay_device = overlay_device
        """The agent's device; None where packets leave by the uplink itself."""
        self.tls: TlsFiles | None = None
        """The agent's certificate for etcd, as the node sees it; None if etcd has no access control."""
        self.environment: dict[str, str] = {}
        """Additional variables for the agent's next start."""
        self._spec = agent
        self._etcd_endpoints = etcd_endpoints
        self._etcd_prefix = etcd_prefix
        self._etcd_login = etcd_login
        self._on_event = on_event
        self._warm_agents = warm_agents
        self._on_ready: Callable[[], None] = lambda: None
        self._gone = threading.Event()
        self.agent = Supervised(
            f"agent {name}", self._launch, RestartPolicy(max_delay_s=LONGEST_WAIT_S), self._agent_changed
        )

    @property
    def runs_our_agent(self) -> bool:
        """Return whether the agent is ours, with a /state to query."""
        return self._spec.command is None

    @property
    def subnet(self) -> IPv4Network:
        """Return the node's share of the pod network. Raises NoSubnetYet."""
        return self._subnet_env()[0].ipv4

    @property
    def ipv6_subnet(self) -> IPv6Network | None:
        """Return its IPv6 share; None if the network has only IPv4. Raises NoSubnetYet."""
        return self._subnet_env()[0].ipv6

    @property
    def gateway(self) -> IPv4Address:
        """Return the bridge's address."""
        return self.subnet.network_address + 1

    @property
    def overlay_mtu(self) -> int:
        """Return the MTU of pods, in bytes."""
        return self._subnet_env()[1]

    @property
    def public_ip(self) -> IPv4Address:
        """Return the node's address on the underlay, in flannel's term."""
        return self.address

    def agent_command(self) -> list[str]:
        """Return the agent's command line, to be run inside the node's namespaces."""
        values = {
            "etcd": self._etcd_endpoints,
            "etcd_prefix": self._etcd_prefix,
            "etcd_ca": self.tls.ca if self.tls else "",
            "etcd_cert": self.tls.certificate if self.tls else "",
            "etcd_key": self.tls.key if self.tls else "",
            "iface": uplink_of(self.name),
            "address": str(self.address),
            "node": self.name,
            "subnet_file": f"/run/{SUBNET_FILE}",
        }
        if self._spec.command is not None:
            return agent_words(self._spec.command, values)
        ours = [
            "--ip-masq",
            f"--bridge={BRIDGE if self.cni is None else ''}",
            "--docker-opts-file=/run/docker_opts.env",
            "--healthz-ip=127.0.0.1",
            f"--healthz-port={HEALTH_PORT}",
            f"--subnet-lease-ttl={LEASE_TTL}",
            f"--journal={JOURNAL}",
            f"--node-name={self.name}",
            f"--datapath={self.datapath}",
            *(["--offload"] if self.offload else []),
        ]
        return [*OURS, *flannel_flags(values), *ours, *self._spec.args]

    def pin(self, network: NetworkConfig, subnet: Subnet, overlay_mtu: int) -> None:
        """Make the agent request this subnet: flannel's own previous-subnet rule reads the file of the last run."""
        env = SubnetEnv(network.network, subnet, overlay_mtu, ip_masq=True, ipv6_network=network.ipv6_network)
        write_subnet_env(self.run / SUBNET_FILE, env)

    def state(self) -> AgentState | None:
        """Return our agent's state (/state); None while it does not answer."""
        if not self.runs_our_agent:
            return None
        try:
            status, body = http_get(self.pid, HEALTH_PORT, "/state")
            answer = json.loads(body)
        except (OSError, ValueError, RecursionError):
            return None
        return answer if status == http.client.OK and isinstance(answer, dict) else None

    def change_agent(self, agent: AgentSpec) -> None:
        """End the running agent, and run this one from now on."""
        self.agent.hold(LEAVE_GRACE_S)
        self._spec = agent
        self.agent.resume()

    def has_written_since(self, time_s: float) -> bool:
        """Return whether the agent wrote its subnet.env after that time, in seconds since the epoch."""
        try:
            return (self.run / SUBNET_FILE).stat().st_mtime >= time_s
        except OSError:
            return False

    def leave(self) -> None:
        """End the agent permanently: the node is about to be removed, and its links are no longer followed."""
        self._gone.set()
        self.agent.stop(LEAVE_GRACE_S)

    def follow_links(self, watch: LinkWatch, on_change: Callable[[], None]) -> None:
        """Call `on_change` shortly after links, addresses or routes of the node changed."""
        watch.follow(in_network_of(self.pid, Monitor), lambda: not self._gone.is_set(), on_change)

    def follow_agent(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` in a new thread each time a restarted agent becomes ready."""
        self._on_ready = on_ready

    def _await_ready(self, pid: int | None) -> None:
        while self.agent.pid == pid and not self._gone.wait(READY_POLL_S):
            if self.why_not_ready() is None:
                self._on_ready()
                return

    def why_not_ready(self) -> str | None:
        """Describe what the node is missing; None if it is ready."""
        if not self.runs_our_agent:
            return self._why_other_agent_is_not_ready()
        state = self.state()
        if state is None:
            return self._why_silent("no answer yet")
        if not state["ready"]:
            return f"agent: {state['why_not_ready'][0]}"
        return None if self.cni is not None or self.kernel.link(BRIDGE) else f"no {BRIDGE} yet"

    def _why_other_agent_is_not_ready(self) -> str | None:
        ready = self._spec.ready or AgentReady()
        file = ready.file
        if self.expected and self.agent.state != "running":
            return self._why_silent("not running")
        if not (self.run / Path(file).relative_to("/run")).exists():
            return self._why_silent(f"no {file} yet")
        if ready.device is not None and self.kernel.link(ready.device) is None:
            return f"no overlay device {ready.device} yet"
        flannels = any(link.name.startswith(OVERLAY_DEVICES) for link in self.kernel.links())
        if ready.device is None and self.overlay_device and not flannels:
            return "no overlay device yet"
        if self.cni is None and self.kernel.link(BRIDGE) is None:
            return self._make_bridge()
        return None

    def _why_silent(self, missing: str) -> str:
        if self.agent.restarts or self.agent.state != "running":
            return f"agent exited with {self.agent.exit_code}: {last_line(self.log)}"
        return f"agent {self.agent.state}, {missing}"

    def _make_bridge(self) -> str | None:
        """Make the bridge from the file of an agent that makes none; return why it cannot be made."""
        command = [*enter_machine(self.pid), *OURS, "bridge", f"--bridge={BRIDGE}", f"--subnet-file=/run/{SUBNET_FILE}"]
        command += [f"--journal={JOURNAL}", f"--node-name={self.name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = last_words(done.stderr).removeprefix("error: ") or f"exit code {done.returncode}"
        return f"no {BRIDGE}: {said}" if done.returncode else None

    def _subnet_env(self) -> tuple[Subnet, int]:
        env = read_env(self.run / SUBNET_FILE)
        if env is None:
            raise NoSubnetYet(f"{self.name} has no subnet yet")
        return env.subnet, env.overlay_mtu

    def _launch(self) -> Process:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        own = {"PYTHONUNBUFFERED": "1", "NOTIFY_SOCKET": f"/run/{SOCKET}"}
        environment = {**os.environ, **own, **self._etcd_login, **self.environment}
        # Its own variables may be for the loader or the interpreter, which read them when a program starts.
        if self.runs_our_agent and not self.environment:
            with namespaces_of(self.pid) as descriptors:
                forked = self._warm_agents.start(self.agent_command(), environment, self.log, descriptors)
            if forked is not None:
                return forked
        with open(self.log, "ab", opener=plain) as log:
            return subprocess.Popen(
                [*enter_machine(self.pid), *self.agent_command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _agent_changed(self, agent: Supervised) -> None:
        if agent.state == "running":
            reason = "Started" if agent.restarts == 0 else "Restarted"
            self._on_event("Normal", f"node/{self.name}", reason, f"agent runs as process {agent.pid}")
            if agent.restarts:
                in_background(f"agent of {self.name}", partial(self._await_ready, agent.pid))
        elif agent.state == "backoff":
            self._on_event("Warning", f"node/{self.name}", "AgentEnded", f"agent exited with {agent.exit_code}")
