"""The state of a running lab: its plan, underlay, etcd, nodes, pods, events.

Changes go through its methods, which notify subscribers of `pods.changed`. A controller takes the parts that it needs,
not the whole state.
"""

from functools import partial
from pathlib import Path
from typing import Final

from agent.errors import NetlinkError
from agent.kernel.journal import FileJournal, Journal
from agent.lease import Subnet
from agent.netconfig.config import NetworkConfig, parse_network_config
from testbed.cgroups.groups import Groups
from testbed.cluster.device_names import BRIDGE
from testbed.cluster.object_key import object_uid
from testbed.cluster.overlay import Overlay, overlay_of
from testbed.cluster.spec import Cluster
from testbed.cluster.underlay_plan import plan_underlay
from testbed.control.options import LabOptions
from testbed.errors import EtcdFailed
from testbed.lab.certificates import Authority
from testbed.lab.clock import now
from testbed.lab.configs import Configs
from testbed.lab.etcd import EtcdMember
from testbed.lab.events import Events
from testbed.lab.existing_etcd import EtcdRelay, Outside
from testbed.lab.forwarding import missing_forwarding, seen_in_kernel
from testbed.lab.kernel_forwarding import Passage
from testbed.lab.link_watch import LinkWatch
from testbed.lab.namespaces import Namespaces
from testbed.lab.node import LabNode, parent_of_agents, uplink_of
from testbed.lab.node_rules import NodeRules
from testbed.lab.nodes import Nodes
from testbed.lab.notices import Notices
from testbed.lab.pod_guard import WHY_REPAIR, PodGuard
from testbed.lab.pods import Pods
from testbed.lab.registry import LabRegistry
from testbed.lab.underlay import LabUnderlay
from testbed.plain_files import plain
from testbed.pods.pod_container import parent_of_shims


class LabState:
    """One lab."""

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        options: LabOptions,
        groups: Groups,
        outside: Outside | None = None,
    ) -> None:
        """`outside` leads to an existing etcd cluster, which takes the place of the lab's own."""
        self.name: Final = options.name
        self.directory: Final = directory
        self.cluster_file: Final = options.cluster_file
        self.since: Final = now()
        self._options = options
        self._settled = False
        self._cluster = cluster
        self._network = cluster.config
        self._overlay = overlay_of(self._network)
        self.events: Final = Events(directory / "events.jsonl")
        is_ovs = cluster.underlay.switch == "ovs"
        plan = plan_underlay(cluster.wiring, cluster.addresses, cluster.underlay.mtu, open_vswitch=is_ovs)
        self.underlay: Final = LabUnderlay(plan, directory, self.journal, self._machine_event)
        self.registry: Final = LabRegistry(
            Authority(self.name) if cluster.etcd.tls else None,
            self._etcd_event,
            outside.existing if outside else None,
        )
        self._outside = outside
        self.warm_agents: Final = parent_of_agents()
        self.warm_shims: Final = parent_of_shims()
        self.nodes: Final = Nodes()
        self.configs: Final = Configs()
        self.pods: Final = Pods(
            self.nodes,
            self.configs,
            groups,
            self.events,
            self.warm_shims,
            network=cluster.config.network,
            dns=cluster.dns,
            uid_of=partial(object_uid, self.name, self.since, "Pod"),
        )
        self.namespaces: Final = Namespaces(cluster.namespaces, self.pods.changed)
        self.link_watch: Final = LinkWatch()
        self.guard_rules: Final = NodeRules(
            self.nodes, self.events, WHY_REPAIR, restored="PodGuardRestored", failed="PodGuardNotRestored"
        )
        self.notices: Final = Notices()
        """Receives the readiness of agents."""

    @property
    def cluster(self) -> Cluster:
        """Return the requested cluster, with the current nodes."""
        return self._cluster

    @property
    def network(self) -> NetworkConfig:
        """Return flannel's network config."""
        return self._network

    @property
    def overlay(self) -> Overlay:
        """Return the properties of the network's backend."""
        return self._overlay

    @property
    def settled(self) -> bool:
        """Return whether the start has ended, successfully or not."""
        return self._settled

    def settle(self) -> None:
        """Record that the start has ended."""
        self._settled = True

    def change_cluster(self, cluster: Cluster) -> None:
        """Replace the nodes in the plan."""
        self._cluster = cluster

    def change_network(self, network_json: str) -> None:
        """Replace the network config, in etcd too; agents read it when they start. Raises EtcdFailed."""
        self._network = parse_network_config(network_json.encode())
        self._overlay = overlay_of(self._network)
        self.registry.write_config(network_json)
        for node in self.nodes.values():
            node.overlay_device = self._overlay.device

    def journal(self, machine: str) -> Journal:
        """Return the journal of kernel changes on a machine."""
        return FileJournal(self.directory / "journal.jsonl", machine, plain)

    def start_etcd(self) -> None:
        """Start every member, or the relay to an existing cluster, on its machine; return before they answer."""
        addresses = self._cluster.addresses.etcd
        authority, machines, program = self.registry.authority, self.underlay.machines, self._cluster.etcd.program
        if (outside := self._outside) is not None:
            self.registry.start(
                EtcdRelay(name, address, machines[name].pid, self.directory, authority, outside)
                for name, address in addresses.items()
            )
            return
        self.registry.start(
            EtcdMember(name, address, machines[name].pid, self.directory, addresses, authority, program)
            for name, address in addresses.items()
        )

    def make_node(self, name: str) -> LabNode:
        """Create one more node with `build_node`, and register it."""
        node = self.build_node(name)
        self.nodes.add([node])
        return node

    def build_node(self, name: str) -> LabNode:
        """Build the node on machine `name` from the cluster; its agent is not started, and it is not registered yet.

        Raises EtcdFailed and OSError.
        """
        machine, addresses, members = self.underlay.machines[name], self._cluster.addresses, self.registry.etcd.members
        cni = self._cluster.cni_of(name)
        node = LabNode(
            name=name,
            address=addresses.nodes[name],
            ipv6_address=addresses.ipv6_of(addresses.nodes[name]),
            pid=machine.pid,
            kernel=machine.kernel,
            guard=PodGuard(
                machine.pid,
                machine.kernel.journal,
                # Plugins may link pods in any way; what comes in by the uplink is not from a pod.
                BRIDGE if cni is None else f"!= {uplink_of(name)}",
                [member.address for member in members],
                dns=self._cluster.dns,
            ),
            directory=self.directory,
            agent=self._cluster.nodes[name].agent or self._cluster.agent,
            cni=cni,
            labels=self._cluster.nodes[name].labels,
            expected=name not in self._options.without_agent,
            datapath=self._options.datapath,
            overlay_device=self._overlay.device,
            etcd_endpoints=self.registry.etcd.endpoints,
            etcd_prefix=self.registry.prefix,
            etcd_login=self.registry.agents_login,
            on_event=self.events.note,
            warm_agents=self.warm_agents,
        )
        node.tls = self.registry.certificate_of(name, node.run)
        machine.kernel.sysctl("net.ipv4.ip_forward", "1", "a node forwards for its pods")
        node.guard.start()
        self.pin(node)
        self.notices.reach(node.run)
        return node

    def pin(self, node: LabNode) -> None:
        """Leave the cluster file's subnet for the node's agent to find; do nothing if the file gives none."""
        spec = self._cluster.nodes[node.name]
        if spec.subnet is not None:
            subnet = Subnet(spec.subnet, spec.ipv6_subnet)
            node.pin(self._network, subnet, self._cluster.underlay.mtu - self._overlay.headers)

    def follow_node(self, node: LabNode) -> None:
        """Repair pods' links after changes of the node's links, for as long as the node exists."""
        repair = partial(self.pods.repair_links, node)
        node.follow_links(self.link_watch, repair)
        node.follow_agent(repair)

    def missing_forwarding(self) -> list[str]:
        """Return how nodes' forwarding tables differ from etcd's leases, one line per node; empty if they agree."""
        return missing_forwarding(self.nodes.values(), self.registry) if self._overlay.connects_nodes else []

    def seen_in_kernel(self, node: LabNode) -> list[Passage]:
        """Return where the node's kernel sends packets for other nodes' subnets; empty while etcd does not answer."""
        try:
            return seen_in_kernel(node, self.registry.leases())
        except (EtcdFailed, NetlinkError):
            return []

    def _etcd_event(self, member: str, reason: str, message: str) -> None:
        self.events.note("Warning", f"machine/{member}", reason, message)

    def _machine_event(self, machine: str, kind: str, reason: str, message: str) -> None:
        subject = f"{'node' if machine in self._cluster.nodes else 'machine'}/{machine}"
        self.events.note(kind, subject, reason, message)
