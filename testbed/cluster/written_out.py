"""A cluster file with every default written out, for `validate --show-defaults`. Pure."""

from typing import Any

from pydantic import BaseModel

from testbed.cluster.cluster_document import NodeSpec, UnderlaySpec
from testbed.cluster.etcd_spec import OF_MEMBERS, EtcdSpec
from testbed.cluster.spec import Cluster
from testbed.cluster.yaml_source import dump_documents

EXPLICIT = ("switches", "routers", "links")
BY_NAME = ("topology", "parameters")


def written_out(cluster: Cluster) -> str:
    """Return the YAML stream of the same cluster with every default in it; it can be read again.

    It omits only values that are unknown until the lab runs: a subnet that an agent chooses, and the node of an
    unassigned pod.
    """
    nodes = {name: {**_plain(node), "ip": str(cluster.addresses.nodes[name])} for name, node in cluster.nodes.items()}
    document = {
        "apiVersion": "testbed/v1",
        "kind": "Cluster",
        "metadata": _plain(cluster.metadata),
        "network": dict(cluster.network),
        "etcd": _etcd(cluster.etcd),
        "underlay": _in_order(UnderlaySpec, {**_underlay(cluster.underlay), "gateway": str(cluster.addresses.gateway)}),
        "nodes": {name: _in_order(NodeSpec, node) for name, node in nodes.items()},
        "agent": _plain(cluster.agent),
        "dns": cluster.dns,
    }
    return dump_documents([document, *map(_plain, cluster.written)], default_flow_style=None)


def _etcd(etcd: EtcdSpec) -> dict[str, Any]:
    existing = etcd.endpoints is not None
    return _plain(etcd if existing else etcd.settled, exclude={*OF_MEMBERS} if existing else set())


def _plain(model: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=exclude)


def _underlay(underlay: UnderlaySpec) -> dict[str, Any]:
    other = BY_NAME if underlay.is_explicit else EXPLICIT
    return {key: value for key, value in _plain(underlay).items() if key not in other}


def _in_order(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: values[name] for name in names if name in values}
