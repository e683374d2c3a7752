"""A complete lab: its state and its controllers."""

from collections.abc import Mapping
from pathlib import Path

from testbed.cgroups.groups import Groups
from testbed.cluster.spec import Cluster
from testbed.control.options import LabOptions
from testbed.dns.names import Names
from testbed.faults.verbs import ledger_of
from testbed.lab.state import LabState
from testbed.policies.policies import Policies
from testbed.services.external_addresses import ExternalAddresses
from testbed.services.services import Services
from testbed.workloads.config_keeper import ConfigKeeper
from testbed.workloads.daemon_set_keeper import DaemonSetKeeper
from testbed.workloads.deployment_keeper import DeploymentKeeper, ReplicaSetKeeper
from testbed.workloads.keeper import Keeper
from testbed.workloads.namespace_keeper import NamespaceKeeper
from testbed.workloads.node_changes import NodeChanges
from testbed.workloads.pod_keeper import PodKeeper
from testbed.workloads.policy_keeper import PolicyKeeper
from testbed.workloads.service_keeper import ServiceKeeper
from testbed.workloads.workloads import Workloads


class Lab:
    """The parts of one lab. Nothing of it runs before `testbed.supervisor.start`."""

    def __init__(self, cluster: Cluster, directory: Path, options: LabOptions, groups: Groups) -> None:
        self.options = options
        self.groups = groups
        self.state = state = LabState(cluster, directory, options, groups)
        nodes, pods, events = state.nodes, state.pods, state.events
        self.workloads = Workloads(nodes, pods, events)
        segment = next(iter(cluster.addresses.subnets), cluster.underlay.cidr)
        self.services = Services(nodes, pods, state.network, events, ExternalAddresses(state.underlay, segment))
        self.policies = Policies(nodes, pods, state.namespaces, events, has_dns=cluster.dns)
        self.names = Names(
            self.services,
            state.underlay,
            state.network.network,
            directory / "logs" / "dns.log",
            pods_changed=pods.changed,
            events=events,
        )
        self.pod_keeper = PodKeeper(self.workloads, nodes, pods, state.underlay)
        self.owner_keepers = (
            DeploymentKeeper(self.workloads, nodes, events),
            ReplicaSetKeeper(self.workloads, nodes, events),
            DaemonSetKeeper(self.workloads, nodes),
        )
        """Of kinds that create pods from a template."""
        self.service_keeper = ServiceKeeper(self.services, pods, self.workloads)
        self.policy_keeper = PolicyKeeper(self.policies)
        self.config_map_keeper = ConfigKeeper("ConfigMap", state.configs)
        self.secret_keeper = ConfigKeeper("Secret", state.configs)
        self.node_changes = NodeChanges(state, self.workloads, self.pod_keeper)
        self.faults = ledger_of(state, self.names, self.services)
        self._keepers: dict[str, Keeper] = {}
        self.namespace_keeper = NamespaceKeeper(state.namespaces, self._keepers)

    @property
    def keepers(self) -> Mapping[str, Keeper]:
        """Return the controllers by kind (`Pod`, `Deployment`, …) that accept objects already."""
        return self._keepers

    def open(self, kind: str, keeper: Keeper) -> None:
        """Accept objects of a kind from now on."""
        self._keepers[kind] = keeper
