"""A running lab's functions for each kind: `get` lists objects, `describe` shows one in full.

A new kind is an entry in `testbed.cluster.kinds`, and one here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.cluster import kinds
from testbed.cluster.environment import ConfigKind
from testbed.cluster.kinds import Kind
from testbed.control.answers.lab import Description
from testbed.lab.events import Events
from testbed.policies.show import describe_policy
from testbed.services import show as show_services
from testbed.supervisor import objects, status
from testbed.supervisor.lab import Lab
from testbed.workloads import show, show_owners
from testbed.workloads.workloads import Workloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """How `describe` finds and shows one object."""

    names: Callable[[Lab], Collection[str]]
    show: Callable[[Lab, str], Description]
    """Raises KeyError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindInLab:
    """The lab's answers about one kind."""

    get: Callable[[Lab], Sequence[Any]]
    """Returns every object, in the order of the cluster file. Raises TestbedError if they are unknown now."""
    one: Callable[[Lab, str], Any] | None = None
    """Returns the object of a name that is unique in the lab, or None; for a kind of which there may be a thousand."""
    describe: Described | None = None


def _owner(kind: Kind, show: Callable[[str, Workloads, Events], Description]) -> Described:
    """Return how to find and show an object that creates pods from a template."""
    return Described(
        names=lambda lab: show_owners.names_of(lab.workloads, kind.name),
        show=lambda lab, name: show(name, lab.workloads, lab.state.events),
    )


def _config(kind: ConfigKind) -> Described:
    """Return how to find and show a ConfigMap or Secret."""
    return Described(
        names=lambda lab: list(map(str, lab.state.configs.of_kind(kind))),
        show=lambda lab, name: show.describe_config(name, kind, lab.state.configs),
    )


SERVICE = Described(
    names=lambda lab: list(map(str, lab.services.numbered)),
    show=lambda lab, name: show_services.describe_service(
        lab.services, name, lab.state.nodes, lab.state.pods, has_dns=lab.state.cluster.dns
    ),
)
IN_LAB: Mapping[Kind, KindInLab] = {
    kinds.NODE: KindInLab(
        get=objects.nodes,
        describe=Described(
            names=lambda lab: lab.state.nodes, show=lambda lab, name: status.describe_node(lab, lab.state.nodes[name])
        ),
    ),
    kinds.POD: KindInLab(
        get=objects.pods,
        one=objects.pod,
        describe=Described(names=lambda lab: lab.state.pods.names(), show=status.describe_pod),
    ),
    kinds.REPLICA_SET: KindInLab(
        get=objects.replica_sets,
        describe=_owner(kinds.REPLICA_SET, show_owners.describe_replica_set),
    ),
    kinds.DEPLOYMENT: KindInLab(
        get=objects.deployments,
        describe=_owner(kinds.DEPLOYMENT, show_owners.describe_deployment),
    ),
    kinds.DAEMON_SET: KindInLab(
        get=objects.daemon_sets,
        describe=_owner(kinds.DAEMON_SET, show_owners.describe_daemon_set),
    ),
    kinds.SERVICE: KindInLab(get=objects.services, describe=SERVICE),
    kinds.CONFIG_MAP: KindInLab(
        get=objects.config_maps,
        describe=_config("ConfigMap"),
    ),
    kinds.SECRET: KindInLab(
        get=objects.secrets,
        describe=_config("Secret"),
    ),
    kinds.NAMESPACE: KindInLab(
        get=objects.namespaces,
        describe=Described(
            names=lambda lab: lab.state.namespaces.names,
            show=lambda lab, name: show.describe_namespace(name, lab.state.namespaces, lab.controllers),
        ),
    ),
    kinds.NETWORK_POLICY: KindInLab(
        get=objects.network_policies,
        describe=Described(
            names=lambda lab: list(map(str, lab.policies.applied)),
            show=lambda lab, name: describe_policy(lab.policies, name),
        ),
    ),
    kinds.ENDPOINTS: KindInLab(get=objects.endpoints, describe=SERVICE),
    kinds.EVENT: KindInLab(get=objects.events),
    kinds.NAME: KindInLab(get=objects.names),
    kinds.LEASE: KindInLab(get=objects.leases),
    kinds.ROUTE_TABLE: KindInLab(get=objects.routes),
}
