"""The lab: underlay, etcd, agents and pods, started in that order and supervised until the lab's PID 1 ends.

«Ready» means: etcd answers → the network config is written → every agent is ready, its bridge included → every pod's
containers run and listen → services are programmed → every node's forwarding table equals etcd's leases.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from agent.kernel import json_lines
from agent.kernel.journal import FileJournal, Journal
from agent.lease import Lease, LeaseAttrs, Subnet
from testbed.cluster.dns import RESOLV_CONF
from testbed.cluster.manifest import Pod as PodManifest
from testbed.cluster.overlay import overlay_of
from testbed.cluster.spec import Cluster
from testbed.cluster.underlay_plan import plan_underlay
from testbed.control.options import LabOptions
from testbed.dns.names import Names
from testbed.lab.certificates import Authority, TlsFiles
from testbed.lab.changes import Changes
from testbed.lab.clock import now
from testbed.lab.etcd import TLS_DIRECTORY, EtcdCluster, EtcdMember
from testbed.lab.etcd_access import admit, agent_user, set_up_access
from testbed.lab.forwarding import missing_forwarding
from testbed.lab.in_few_words import in_few_words
from testbed.lab.lease_entries import as_lease
from testbed.lab.link_watch import LinkWatch
from testbed.lab.log_keeper import LogKeeper
from testbed.lab.node import LabNode, parent_of_agents
from testbed.lab.notices import Notices
from testbed.lab.sessions import missing_sessions
from testbed.lab.underlay import Underlay
from testbed.plain_files import plain
from testbed.pods.ipam import Ipam
from testbed.pods.pod import NETNS_DIRECTORY, Pod
from testbed.pods.pod_container import parent_of_shims
from testbed.pods.pod_network import bind_name
from testbed.pods.port_guard import load, names_script, servers_script
from testbed.services.service_keeper import ServiceKeeper
from testbed.services.services import Services
from testbed.supervisor.agents_start import start_agents
from testbed.supervisor.unready_pods import UnreadyPods
from testbed.workloads.deployment_keeper import DeploymentKeeper
from testbed.workloads.keeper import Keeper
from testbed.workloads.pod_keeper import PodKeeper
from testbed.workloads.pod_watch import PodWatch
from testbed.workloads.workloads import Workloads

ETCD_PREFIX = "/coreos.com/network"
PHASE_LIMIT_S = {"etcd": 20.0, "agents": 45.0, "pods": 90.0, "services": 20.0, "forwarding": 20.0}
USUAL_NODES = 50
"""Up to so many these limits are for; more have longer."""
POLL_S = 0.05
LATE_POLL_S = 0.5
EVENTS_KEPT = 2000

Progress = Callable[[str, str, str], None]
"""Called with (phase, "start" | "waiting" | "done", what is waited for or what was done)."""


class LabNotReady(Exception):
    """A phase did not finish in its time; names what is missing."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the lab, as `testbed events` shows it."""

    at: str
    """RFC 3339, UTC."""
    type: str
    """Normal or Warning."""
    object: str
    """`pod/nginx`, `node/node1`, …"""
    reason: str
    message: str


class Lab:
    """Everything that runs in one lab."""

    def __init__(self, cluster: Cluster, directory: Path, options: LabOptions) -> None:
        self.name = options.name
        self.cluster = cluster
        self.network = cluster.config
        self.overlay = overlay_of(self.network)
        self.directory = directory
        self.cluster_file = options.cluster_file
        self.since = now()
        self.settled = False
        """True once `start` has ended, well or not."""
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._events_lock = threading.Lock()
        self._options = options
        is_ovs = cluster.underlay.switch == "ovs"
        plan = plan_underlay(cluster.wiring, cluster.addresses, cluster.underlay.mtu, open_vswitch=is_ovs)
        self.underlay = Underlay(plan, directory, self.journal, self._machine_event)
        self.authority = Authority(self.name) if cluster.etcd.tls else None
        self._users: set[str] = set()
        """Agents that etcd knows."""
        self.etcd = EtcdCluster([])
        self.nodes: Mapping[str, LabNode] = {}
        """Replaced as a whole when nodes come and go."""
        self.pods: Mapping[str, Pod] = {}
        """Replaced as a whole when pods come and go, so that whoever goes through it sees one state."""
        self.pods_changed = Changes()
        """Told when a pod or node comes or goes, becomes ready or stops being so, or gets other labels."""
        self.pod_watch = PodWatch(lambda: self.pods.values(), self.pods_changed)
        self.keepers: dict[str, Keeper] = {}
        """Kind (`Pod`, `Deployment`, …) → who looks after its objects."""
        self._changing_pods = threading.Lock()
        self._addresses: dict[str, Ipam] = {}
        """Of pods, by node."""
        self.link_watch = LinkWatch()
        self.notices = Notices()
        """Of agents that became ready."""
        self.warm_agents, self.warm_shims = parent_of_agents(), parent_of_shims()
        self.workloads = Workloads(self)
        self.services = Services(self)
        self.names = Names(self)
        LogKeeper(directory).start()

    def start(self, progress: Progress) -> None:
        """Bring everything up. Raises LabNotReady naming what is missing when a phase runs out of time."""
        try:
            for phase, work in (
                ("underlay", self._start_underlay),
                ("etcd", self._start_etcd),
                ("agents", partial(start_agents, self)),
                ("pods", self._start_pods),
                ("services", self._start_services),
                ("forwarding", self._await_forwarding),
            ):
                progress(phase, "start", "")
                progress(phase, "done", work(progress))
        finally:
            self.settled = True

    def event(self, kind: str, subject: str, reason: str, message: str) -> None:
        """Note that something happened."""
        event = Event(now(), kind, subject, reason, message)
        with self._events_lock, contextlib.suppress(OSError):
            self.events.append(event)
            # A file that cannot be written stops nothing: `events` has it all the same.
            json_lines.append(self.directory / "events.jsonl", asdict(event), plain)

    def _machine_event(self, machine: str, kind: str, reason: str, message: str) -> None:
        self.event(kind, f"{'node' if machine in self.cluster.nodes else 'machine'}/{machine}", reason, message)

    def prepare_etcd(self) -> None:
        """Put the cluster file's network config and reservations into etcd, and say who may do what there.

        Raises EtcdFailed.
        """
        self.etcd.put(f"{ETCD_PREFIX}/config", self.cluster.network_json.encode())
        for name, node in self.cluster.nodes.items():
            if node.reserved and node.subnet is not None:
                address = self.cluster.addresses.nodes[name]
                attrs = LeaseAttrs(public_ip=address, public_ipv6=self.cluster.addresses.ipv6_of(address))
                key = Subnet(node.subnet, node.ipv6_subnet).key
                self.etcd.put(f"{ETCD_PREFIX}/subnets/{key}", attrs.to_json().encode())

        if self.authority is not None:
            users = {agent_user(node) for node in self.cluster.nodes} | self._users
            set_up_access(self.etcd, ETCD_PREFIX, sorted(users))
            self._users = users

    def leases(self) -> list[Lease]:
        """The leases in etcd, by key. Keys and values that are none are left out. Raises EtcdFailed."""
        found = []
        for entry in self.etcd.get_prefix(f"{ETCD_PREFIX}/subnets"):
            lease = as_lease(entry)
            if lease is not None:
                found.append(lease)
        return found

    def missing_forwarding(self) -> list[str]:
        """How nodes' forwarding tables differ from etcd's leases, a line per node; empty when they agree."""
        return missing_forwarding(self) if self.overlay.connects_nodes else []

    def add_pod(self, pod: Pod) -> None:
        """Let everybody know the pod."""
        with self._changing_pods:
            self.pods = {**self.pods, pod.name: pod}
        self.pods_changed.notify()

    def forget_pod(self, pod: Pod) -> None:
        """Let nobody know the pod any more; it has ended."""
        with self._changing_pods:
            self.pods = {name: other for name, other in self.pods.items() if other is not pod}
        self.pods_changed.notify()

    def journal(self, machine: str) -> Journal:
        """Where kernel changes on a machine are written down."""
        return FileJournal(self.directory / "journal.jsonl", machine, plain)

    def _start_underlay(self, _progress: Progress) -> str:
        # They import while the underlay is made and etcd starts.
        self.warm_agents.prepare()
        self.warm_shims.prepare()
        self.underlay.start()
        for name, machine in self.underlay.machines.items():
            bind_name(NETNS_DIRECTORY, name, machine.pid)
        # Before there are pods: nginx asks for the names in its config once, when it starts.
        self.services.want(self.cluster.services)
        if self.cluster.dns:
            self.names.start()
        switches = len(self.underlay.net.switches)
        kind = "Open vSwitch " if self.underlay.plan.open_vswitch else ""
        return f"{switches} {kind}{'switch' if switches == 1 else 'switches'}, {len(self.underlay.machines)} machines"

    def _start_etcd(self, progress: Progress) -> str:
        addresses = self.cluster.addresses.etcd
        self.etcd = EtcdCluster(
            [
                EtcdMember(name, address, self.underlay.machines[name].pid, self.directory, addresses, self.authority)
                for name, address in addresses.items()
            ]
        )
        self.etcd.start()
        self.await_phase(
            "etcd",
            progress,
            lambda: [why for member in self.etcd.members if (why := member.why_not_healthy())],
        )
        self.prepare_etcd()
        return f"{self.etcd.endpoints}, network config written"

    def make_node(self, name: str) -> LabNode:
        """A node more: see `build_node`."""
        node = self.build_node(name)
        self.nodes = {**self.nodes, name: node}
        return node

    def build_node(self, name: str) -> LabNode:
        """The node on machine `name`, as the cluster has it; its agent is not started yet, and nobody knows of it."""
        machine, addresses = self.underlay.machines[name], self.cluster.addresses
        node = LabNode(
            name=name,
            address=addresses.nodes[name],
            ipv6_address=addresses.ipv6_of(addresses.nodes[name]),
            pid=machine.pid,
            kernel=machine.kernel,
            directory=self.directory,
            agent=self.cluster.nodes[name].agent or self.cluster.agent,
            expected=name not in self._options.without_agent,
            datapath=self._options.datapath,
            overlay_device=self.overlay.device,
            etcd_endpoints=self.etcd.endpoints,
            on_event=self.event,
            warm_agents=self.warm_agents,
        )
        if self.authority is not None:
            node.tls = self._certificate(self.authority, node)
        machine.kernel.sysctl("net.ipv4.ip_forward", "1", "a node forwards for its pods")
        servers = [member.address for member in self.etcd.members]
        script = servers_script(node.bridge, servers) + (names_script() if self.cluster.dns else "")
        load(node.pid, machine.kernel.journal, script, "what pods reach on the underlay: etcd never, the DNS always")
        self.pin(node)
        self.notices.reach(node.run)
        return node

    def _certificate(self, authority: Authority, node: LabNode) -> TlsFiles:
        """Of the node's agent, which becomes a user of etcd."""
        user = agent_user(node.name)
        if user not in self._users:
            admit(self.etcd, user)
            self._users.add(user)
        return authority.issue(node.run / Path(TLS_DIRECTORY).name, TLS_DIRECTORY, user)

    def pin(self, node: LabNode) -> None:
        """Leave the subnet that the cluster file gives the node for its agent to find; nothing where it gives none."""
        spec = self.cluster.nodes[node.name]
        if spec.subnet is not None:
            subnet = Subnet(spec.subnet, spec.ipv6_subnet)
            node.pin(self.network, subnet, self.cluster.underlay.mtu - self.overlay.headers)

    def follow_node(self, node: LabNode) -> None:
        """Mend pods' links after changes of the node's links, for as long as it is there."""
        node.follow_links(self.link_watch, partial(self._mend_links, node))
        node.follow_agent(partial(self._mend_links, node))

    def new_pod(self, manifest: PodManifest) -> Pod:
        """A pod on the node that its manifest names; nothing is made yet and nobody knows of it."""
        node = self.nodes[manifest.spec.node_name or ""]
        addresses = self._addresses.setdefault(node.name, Ipam(node.rundir / "addresses"))
        changed, names = partial(self.pod_watch.look, manifest.name), RESOLV_CONF if self.cluster.dns else ""
        return Pod(
            manifest, node, addresses, self.event, on_change=changed, resolv_conf=names, warm_shims=self.warm_shims
        )

    def _start_pods(self, progress: Progress) -> str:
        for manifest in self.cluster.pods:
            self.workloads.bare[manifest.name] = manifest
            self.add_pod(self.new_pod(manifest))
        self.pod_watch.start()
        self.link_watch.start()
        self.names.follow()
        now = [pod for node in self.nodes.values() if node.expected for pod in self._pods_of(node)]
        _start_all(now)
        for node in self.nodes.values():
            if node.expected:
                self.follow_node(node)
            else:
                threading.Thread(target=self._start_late, args=(node,), name=f"late {node.name}", daemon=True).start()
        self.workloads.start(self.cluster.deployments)
        keeper = DeploymentKeeper(self, self.workloads)
        self.keepers |= {"Pod": PodKeeper(self, self.workloads), "Deployment": keeper}
        waiting = UnreadyPods(now)
        self.await_phase("pods", progress, lambda: [*waiting.reasons(), *keeper.all_why_not_ready()])
        return f"{sum(pod.status().ready for pod in self.pods.values())} pods ready"

    def _start_services(self, progress: Progress) -> str:
        self.services.start()
        self.names.publish()
        self.keepers["Service"] = ServiceKeeper(self, self.services)
        missing = (self.services.why_not_programmed, self.names.why_not_served)
        self.await_phase("services", progress, lambda: [why for ask in missing for why in ask()])
        return ", ".join(f"{name} {one.spec.cluster_ip}" for name, one in self.services.numbered.items()) or "none"

    def _pods_of(self, node: LabNode) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.manifest.spec.node_name == node.name]

    def _start_late(self, node: LabNode) -> None:
        """Start the pods of a node whose agent somebody runs by hand, once that agent is ready."""
        while node.why_not_ready() is not None:
            time.sleep(LATE_POLL_S)
        _start_all(self._pods_of(node))
        self.follow_node(node)

    def _mend_links(self, node: LabNode) -> None:
        """After a change of the node's links or subnet: whoever removed the bridge took the pods' links off it."""
        for pod in self._pods_of(node):
            try:
                pod.mend_link()
            except OSError as failure:
                self.event("Warning", f"pod/{pod.name}", "LinkNotMended", str(failure))

    def _await_forwarding(self, progress: Progress) -> str:
        self.await_phase("forwarding", progress, self.missing_forwarding)
        if self.overlay.has_sessions:
            nodes = [node for node in self.nodes.values() if node.expected]
            self.await_phase("forwarding", progress, partial(missing_sessions, nodes))
        if not self.overlay.connects_nodes:
            return f"the {self.overlay.backend} backend leaves packets between nodes to others"
        return "every node's forwarding table equals etcd's leases"

    def wait_for(self, lacking: Callable[[], str], limit_s: float) -> str:
        """Wait until `lacking` says nothing; returns its last word, empty when all is there."""
        deadline = time.monotonic() + limit_s
        while (text := lacking()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return text

    def await_phase(
        self,
        phase: str,
        progress: Progress,
        missing: Callable[[], list[str]],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait until `missing` is empty, with a `pause` of some seconds between two looks. Raises LabNotReady."""
        limit_s = self._options.timeout_s or PHASE_LIMIT_S[phase] * max(1.0, len(self.cluster.nodes) / USUAL_NODES)
        deadline = time.monotonic() + limit_s
        told = ""
        asked_at = time.monotonic()
        while lacking := missing():
            text = in_few_words(lacking)
            asking_s = time.monotonic() - asked_at
            if time.monotonic() > deadline:
                raise LabNotReady(f"{phase}: not ready after {limit_s:g} s: {text}")
            if text != told:
                progress(phase, "waiting", text)
                told = text
            # Asking many must not take the processor from those that are still starting.
            pause(max(POLL_S, 3 * asking_s))
            asked_at = time.monotonic()


def _start_all(pods: Sequence[Pod]) -> None:
    # Addresses are given in file order, so that the example's stay the example's; the rest may run side by side.
    for pod in pods:
        pod.reserve_address()
    with ThreadPoolExecutor(4, "start pod") as workers:
        list(workers.map(lambda pod: pod.start(), pods))
