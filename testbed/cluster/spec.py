"""The cluster file: one YAML stream of a Cluster document and Kubernetes manifests, read, checked and completed.

    bytes ── yaml_source ──> documents with positions ── validation ──> models ── checks ──> Cluster

Every stage collects all its problems; a file with problems results in one SpecError with all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.netconfig.config import NetworkConfig
from testbed.cluster.addresses import AddressPlan
from testbed.cluster.cluster_checks import addresses_of, check_cluster, has_dns, read_network
from testbed.cluster.cluster_document import AgentSpec, ClusterDocument, CniSpec, NodeSpec, UnderlaySpec
from testbed.cluster.config_objects import ConfigObject
from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.etcd_spec import EtcdSpec
from testbed.cluster.image_names import ImageRule
from testbed.cluster.images import check_rules
from testbed.cluster.manifest import Metadata, PodManifest, PodSpec
from testbed.cluster.manifests import (
    Object,
    check_namespaces,
    check_twice,
    is_known,
    kind_of,
    of_kind,
    read_manifests,
)
from testbed.cluster.namespace import Namespace
from testbed.cluster.network_json import network_json
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.placement import SeenNode, nodes_for, place_all
from testbed.cluster.pod_checks import TEMPLATE, check_names, check_node
from testbed.cluster.pod_template import PodOwner
from testbed.cluster.problems import Problem, SpecError, near_match, shorten
from testbed.cluster.replica_set import ReplicaSet
from testbed.cluster.service import Service
from testbed.cluster.service_checks import check_dual_stack, check_range, check_together, selects_nothing
from testbed.cluster.short_form import with_nodes_by_name
from testbed.cluster.underlay_checks import read_wiring
from testbed.cluster.validation import Source, read_model
from testbed.cluster.wiring import Wiring
from testbed.cluster.yaml_source import read_documents
from testbed.places import DEFAULT_CLUSTER, TOPOLOGIES
from testbed.plain_files import MAX_BYTES
from testbed.spelling import listed

MACHINES = ("gw", "etcd1", "etcd2", "etcd3")
"""Machines of a lab besides nodes and routers; `exec NAME` must be unambiguous."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that can be built: everything checked, every pod on a node, every machine with its address."""

    metadata: Metadata
    network: Mapping[str, Any]
    """flannel's network config, as in the file."""
    network_json: str
    """The same in its etcd form, byte for byte."""
    config: NetworkConfig
    """The same as the agents parse it."""
    etcd: EtcdSpec
    underlay: UnderlaySpec
    nodes: Mapping[str, NodeSpec]
    """In the order of the file."""
    agent: AgentSpec
    """For every node without its own."""
    cni: CniSpec | None
    """For every node without its own; None: the lab makes pods' networks itself."""
    pods: tuple[PodManifest, ...]
    """In the order of the file; each has its `spec.node_name`."""
    written_pods: tuple[PodManifest, ...]
    """The same as in the file: without a node if it names none."""
    deployments: tuple[Deployment, ...]
    """In the order of the file."""
    replica_sets: tuple[ReplicaSet, ...]
    """In the order of the file."""
    daemon_sets: tuple[DaemonSet, ...]
    """In the order of the file."""
    services: tuple[Service, ...]
    """In the order of the file."""
    network_policies: tuple[NetworkPolicy, ...]
    """In the order of the file."""
    namespaces: tuple[Namespace, ...]
    """Those with a document, in the order of the file."""
    configs: tuple[ConfigObject, ...]
    """ConfigMaps and Secrets, in the order of the file."""
    warnings: tuple[Problem, ...]
    """Probable mistakes, which are accepted all the same."""
    addresses: AddressPlan
    images: tuple[ImageRule, ...]
    """Recipes for images; the first match wins."""
    dns: bool
    """Whether the lab has a DNS for Services and pods."""
    wiring: Wiring
    """Switches, routers and cables between the nodes."""
    text: str
    """The YAML stream that this was read from."""

    @property
    def name(self) -> str:
        """Return `metadata.name`."""
        return self.metadata.name

    def cni_of(self, node: str) -> CniSpec | None:
        """Return the CNI plugins of a node: its own, or those of all."""
        return self.nodes[node].cni or self.cni

    @property
    def written(self) -> tuple[Object, ...]:
        """Return every object as in the file."""
        return (
            *self.namespaces,
            *self.network_policies,
            *self.written_pods,
            *self.pod_owners,
            *self.services,
            *self.configs,
        )

    @property
    def pod_owners(self) -> tuple[Deployment | ReplicaSet | DaemonSet, ...]:
        """Return every object that creates pods from a template."""
        return (*self.deployments, *self.replica_sets, *self.daemon_sets)

    @property
    def pod_specs(self) -> list[PodSpec]:
        """Return the spec of each pod, and of each template once."""
        return [*(pod.spec for pod in self.pods), *(owner.spec.template.spec for owner in self.pod_owners)]

    @property
    def pod_count(self) -> int:
        """Return how many pods there will be, including those of templates."""
        nodes = [SeenNode(name, labels=node.labels) for name, node in self.nodes.items()]
        daemons = sum(len(nodes_for(one.spec.template.spec, nodes)) for one in self.daemon_sets)
        of_deployments = sum(one.spec.replicas for one in self.deployments)
        return len(self.pods) + of_deployments + sum(one.spec.replicas for one in self.replica_sets) + daemons


def load_cluster(path: Path | str, images: Sequence[ImageRule] = ()) -> Cluster:
    """Read the cluster file at `path`; `images` take precedence over its own.

    Raises SpecError with all its problems.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        want = "want a readable cluster file"
        raise SpecError([Problem(str(path), f"cannot be read (got {error.strerror}; {want})")]) from None
    return read_cluster(data, str(path), images)


def read_cluster(data: bytes, name: str, images: Sequence[ImageRule] = ()) -> Cluster:
    """Read the cluster from the YAML stream `data`; `name` is the file's name in problems.

    Raises SpecError. `images` take precedence over those of the file.
    """
    documents, problems = read_documents(data, name)
    if not documents:
        raise SpecError(problems)
    sources = [Source(document, name) for document in documents]
    sources[0], nodes_twice = with_nodes_by_name(sources[0])
    problems += nodes_twice
    cluster, wiring, config, cluster_problems = _read_cluster_document(sources[0])
    rules = (*images, *(ImageRule(*one) for one in cluster.images.items())) if cluster else tuple(images)
    manifests, manifest_problems, noted = read_manifests(sources[1:], rules)
    problems += cluster_problems + manifest_problems
    routers, node_names = wiring.routers if wiring else (), _node_names(sources[0])
    pods, services = of_kind(manifests, PodManifest), of_kind(manifests, Service)
    owners = [(source, one) for source, one in manifests if isinstance(one, PodOwner)]
    problems += check_names(pods, sources[0], node_names, {*MACHINES, *routers})
    problems += [*check_namespaces(manifests), *check_twice(manifests)]
    problems += check_together(services)
    for source, owner in owners:
        problems += check_node(source, (*TEMPLATE, "spec"), owner.spec.template.spec, node_names)
    placed = place_all([pod.spec for _, pod in pods], _seen(node_names, cluster))
    for (source, pod), (node, why) in zip(pods, placed, strict=True):
        if node is None and (pod.spec.node_name is None or pod.spec.node_name in node_names):
            problems.append(source.problem(("spec",), f"no node takes this pod (got {why}; want a node with room)"))
    if config is not None and not problems:
        problems += check_range(services, config.network)
        problems += check_dual_stack(services, config.ipv6_network is not None)
    if problems or cluster is None or wiring is None or config is None:
        raise SpecError(_in_order(problems))
    return Cluster(
        metadata=cluster.metadata,
        network=cluster.network,
        network_json=network_json(cluster.network),
        config=config,
        etcd=cluster.etcd,
        underlay=cluster.underlay,
        nodes=cluster.nodes,
        agent=cluster.agent,
        cni=cluster.cni,
        pods=tuple(pod.on_node(node or "") for (_, pod), (node, _) in zip(pods, placed, strict=True)),
        written_pods=tuple(pod for _, pod in pods),
        deployments=tuple(deployment for _, deployment in of_kind(manifests, Deployment)),
        replica_sets=tuple(replica_set for _, replica_set in of_kind(manifests, ReplicaSet)),
        daemon_sets=tuple(daemon_set for _, daemon_set in of_kind(manifests, DaemonSet)),
        services=tuple(service for _, service in services),
        network_policies=tuple(policy for _, policy in of_kind(manifests, NetworkPolicy)),
        namespaces=tuple(namespace for _, namespace in of_kind(manifests, Namespace)),
        configs=tuple(one.object for one in manifests if isinstance(one.object, ConfigObject)),
        warnings=tuple(_in_order([*noted, *selects_nothing(services, _labels(pods, owners))])),
        addresses=addresses_of(cluster, wiring, config),
        images=rules,
        dns=has_dns(cluster, config),
        wiring=wiring,
        text=data.decode(),
    )


def find_cluster(name: str = DEFAULT_CLUSTER, images: Sequence[ImageRule] = ()) -> Cluster:
    """Return the cluster of a file, or a bundled one by its name (`-` and `_` are the same). Raises SpecError."""
    return load_cluster(find_cluster_file(name), images)


def find_cluster_file(name: str = DEFAULT_CLUSTER) -> Path:
    """Return the file that `name` means. Raises SpecError with the known names."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    known = cluster_names()
    wanted = name.replace("-", "_")
    if wanted in known:
        return TOPOLOGIES / f"{wanted}.yaml"
    want = f"{listed(known, wanted)}, or the path of a file"
    raise SpecError(
        [Problem(shorten(name), f"no such cluster (got {shorten(name)}; want {want}){near_match(name, known)}")]
    )


def cluster_names() -> list[str]:
    """Return the names of the bundled clusters."""
    return sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))


def _read_cluster_document(
    source: Source,
) -> tuple[ClusterDocument | None, Wiring | None, NetworkConfig | None, list[Problem]]:
    kind = kind_of(source)
    if not isinstance(source.document.value, dict):
        return (
            None,
            None,
            None,
            [source.problem((), "not a mapping (got a list or a bare value; want a Cluster document)")],
        )
    if is_known(kind):
        want = "apiVersion: testbed/v1, kind: Cluster before the manifests"
        what = f"the first document is not a Cluster (got {kind[1]}; want {want})"
        return None, None, None, [source.problem(("kind",), what)]
    document, problems = read_model(source, ClusterDocument)
    if document is None:
        return None, None, None, problems
    wiring, found = read_wiring(source, document)
    config, wrong = read_network(source, document)
    checked = [*check_cluster(source, document, wiring, config), *check_rules(source, document.images)]
    return document, wiring, config, [*problems, *found, *wrong, *checked]


def _node_names(source: Source) -> list[str]:
    """Return the names under `nodes`, even if the rest of the document is wrong."""
    nodes = source.document.value.get("nodes") if isinstance(source.document.value, dict) else None
    return list(nodes) if isinstance(nodes, dict) else []


def _seen(names: Iterable[str], cluster: ClusterDocument | None) -> list[SeenNode]:
    labels = {name: node.labels for name, node in cluster.nodes.items()} if cluster else {}
    return [SeenNode(name, labels=labels.get(name, {})) for name in names]


def _labels(
    pods: Iterable[tuple[Source, PodManifest]], owners: Iterable[tuple[Source, PodOwner]]
) -> list[tuple[str, Mapping[str, str]]]:
    """Return namespace and labels of each pod, including those from templates."""
    of_templates = [(one.metadata.namespace, one.spec.template.metadata.labels) for _, one in owners]
    return [*((pod.metadata.namespace, pod.metadata.labels) for _, pod in pods), *of_templates]


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Sort by line and column; every problem of a file has both."""

    def place(problem: Problem) -> tuple[int, ...]:
        return tuple(int(number) for number in problem.where.split(":")[-2:])

    return sorted(problems, key=place)
