"""A complete lab: its state and its controllers."""

from collections.abc import Mapping
from pathlib import Path

from testbed.cgroups.groups import Groups
from testbed.cluster.spec import Cluster
from testbed.control.options import LabOptions
from testbed.dns.names import Names
from testbed.faults.verbs import ledger_of
from testbed.lab.existing_etcd import Outside
from testbed.lab.state import LabState
from testbed.policies.policies import Policies
from testbed.services.external_addresses import ExternalAddresses
from testbed.services.services import Services
from testbed.supervisor.kept_shapes import KeptShapes
from testbed.workloads.config_controller import ConfigController
from testbed.workloads.controller import Controller
from testbed.workloads.daemon_set_controller import DaemonSetController
from testbed.workloads.deployment_controller import DeploymentController, ReplicaSetController
from testbed.workloads.namespace_controller import NamespaceController
from testbed.workloads.node_changes import NodeChanges
from testbed.workloads.pod_controller import PodController
from testbed.workloads.policy_controller import PolicyController
from testbed.workloads.service_controller import ServiceController
from testbed.workloads.workloads import Workloads


class Lab:
    """The parts of one lab. Nothing of it runs before `testbed.supervisor.start`."""

    def __init__(
        self, cluster: Cluster, directory: Path, options: LabOptions, groups: Groups, outside: Outside | None = None
    ) -> None:
        """`outside` leads to an existing etcd cluster."""
        self.options = options
        self.groups = groups
        self.state = state = LabState(cluster, directory, options, groups, outside)
        nodes, pods, events = state.nodes, state.pods, state.events
        segment = next(iter(cluster.addresses.subnets), cluster.underlay.cidr)
        self.services = Services(nodes, pods, state.network, events, ExternalAddresses(state.underlay, segment))
        self.workloads = Workloads(nodes, pods, events, self.services.why_not_written)
        self.policies = Policies(nodes, pods, state.namespaces, events, has_dns=cluster.dns)
        self.names = Names(
            self.services,
            state.underlay,
            state.network,
            directory / "logs" / "dns.log",
            pods_changed=pods.changed,
            events=events,
        )
        self.pod_controller = PodController(self.workloads, nodes, pods, state.underlay)
        self.owner_controllers = (
            DeploymentController(self.workloads, nodes, events),
            ReplicaSetController(self.workloads, nodes, events),
            DaemonSetController(self.workloads, nodes),
        )
        """The controllers of kinds that create pods from a template."""
        self.service_controller = ServiceController(self.services, pods, self.workloads)
        self.policy_controller = PolicyController(self.policies)
        self.config_map_controller = ConfigController("ConfigMap", state.configs)
        self.secret_controller = ConfigController("Secret", state.configs)
        self.node_changes = NodeChanges(state, self.workloads, self.pod_controller)
        self.faults = ledger_of(state, self.names, self.services, self.workloads.build_later)
        self.pod_shapes = KeptShapes()
        self._controllers: dict[str, Controller] = {}
        self.namespace_controller = NamespaceController(state.namespaces, self._controllers)

    @property
    def controllers(self) -> Mapping[str, Controller]:
        """Return the controllers by kind (`Pod`, `Deployment`, …) that accept objects already."""
        return self._controllers

    def open(self, kind: str, controller: Controller) -> None:
        """Accept objects of a kind from now on."""
        self._controllers[kind] = controller
