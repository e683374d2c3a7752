"""Objects as kubectl prints them: a meta.k8s.io/v1 Table with Kubernetes' own columns. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from testbed.cluster.columns import at, joined, selector_text

Object = Mapping[str, Any]
Cell = Callable[[Object], object]
NONE = "<none>"
AGES = (("d", 86_400, 172_800), ("h", 3_600, 10_800), ("m", 60, 120), ("s", 1, 0))
"""Unit, its length in seconds, and from how many seconds on it is used."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a Table; `wide` ones are printed with `-o wide` alone."""

    name: str
    cell: Cell
    wide: bool = False
    type: str = "string"


def table(kind: str, items: Sequence[Object], version: int | None, *, whole: bool, heading: bool = True) -> Object:
    """Return a Table of objects of a kind; `whole`: with each object, not its metadata alone."""
    shown = [*EVENT_COLUMNS] if kind == "Event" else [Column("Name", NAME), *COLUMNS.get(kind, (AGE,))]
    rows = [
        {
            "cells": [_cell(column, item) for column in shown],
            "object": item
            if whole
            else {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]},
        }
        for item in items
    ]
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": column.name,
            "priority": int(column.wide),
        }
        for column in shown
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {} if version is None else {"resourceVersion": str(version)},
        "columnDefinitions": definitions if heading else [],
        "rows": rows,
    }


def _cell(column: Column, item: Object) -> object:
    value = column.cell(item)
    if column.type == "integer":
        return 0 if value is None else value
    return NONE if value in (None, "") else str(value)


def age(since: str | None, now: datetime | None = None) -> str:
    """Return how long ago a time was, about as kubectl says it: 45s, 3m20s, 45m, 5h, 2d."""
    if not since:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds()))
    if 120 <= seconds < 600 and seconds % 60:
        return f"{seconds // 60}m{seconds % 60}s"
    unit, length = next((unit, length) for unit, length, least in AGES if seconds >= least)
    return f"{seconds // length}{unit}"


def _first_address(item: Object) -> str | None:
    addresses = item["status"].get("addresses", ())
    return next((one["address"] for one in addresses if one["type"] == "InternalIP"), None)


def _node_status(item: Object) -> str:
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in item["status"]["conditions"])
    closed = item["spec"].get("unschedulable", False)
    return ("Ready" if ready else "NotReady") + (",SchedulingDisabled" if closed else "")


def _containers(item: Object) -> Sequence[Any]:
    statuses: Sequence[Any] = item["status"].get("containerStatuses", ())
    return statuses


def _ready_containers(item: Object) -> str:
    return f"{sum(1 for one in _containers(item) if one['ready'])}/{len(item['spec']['containers'])}"


def _template(item: Object) -> Object:
    spec: Object = item["spec"]["template"]["spec"]
    return spec


def _names(item: Object) -> str | None:
    return joined_tightly(one["name"] for one in _template(item)["containers"])


def _images(item: Object) -> str | None:
    return joined_tightly(one["image"] for one in _template(item)["containers"])


def joined_tightly(parts: Any) -> str | None:  # noqa: ANN401 - any iterable of texts
    """As kubectl joins: commas without blanks."""
    text = joined(parts)
    return None if text is None else text.replace(", ", ",")


def _selector(item: Object) -> str:
    return selector_text(item["spec"].get("selector") or {}).replace(", ", ",")


def _plain_labels(labels: Mapping[str, str] | None) -> str | None:
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or None


def _external(item: Object) -> str | None:
    ingress = item["status"].get("loadBalancer", {}).get("ingress", ())
    given = [one["ip"] for one in ingress] or item["spec"].get("externalIPs", [])
    return joined_tightly(given)


def _ports(item: Object) -> str | None:
    return joined_tightly(
        f"{one['port']}{f':{node}' if (node := one.get('nodePort')) else ''}/{one.get('protocol', 'TCP')}"
        for one in item["spec"].get("ports", ())
    )


def _endpoints(item: Object) -> str | None:
    return joined_tightly(
        f"{address['ip']}:{port['port']}"
        for subset in item.get("subsets", ())
        for address in subset.get("addresses", ())
        for port in subset.get("ports", ())
    )


def _ready_of(ready: str, wanted: Callable[[Object], object]) -> Cell:
    return lambda item: f"{item['status'].get(ready) or 0}/{wanted(item) or 0}"


def _data(item: Object) -> int:
    return len(item.get("data") or {}) + len(item.get("binaryData") or {})


NAME = at("metadata", "name")
CREATED = at("metadata", "creationTimestamp")
AGE = Column("Age", lambda item: age(str(CREATED(item) or "")))
_TEMPLATE = (
    Column("Containers", _names, wide=True),
    Column("Images", _images, wide=True),
    Column("Selector", _selector, wide=True),
)
EVENT_COLUMNS = (
    Column("Last Seen", lambda item: age(item.get("lastTimestamp"))),
    Column("Type", at("type")),
    Column("Reason", at("reason")),
    Column("Object", lambda item: f"{item['involvedObject']['kind'].lower()}/{item['involvedObject']['name']}"),
    Column("Message", at("message")),
)
COLUMNS: Mapping[str, Sequence[Column]] = {
    "Node": (
        Column("Status", _node_status),
        Column("Roles", lambda _: None),
        AGE,
        Column("Version", at("status", "nodeInfo", "kubeletVersion")),
        Column("Internal-IP", _first_address, wide=True),
        Column("External-IP", lambda _: None, wide=True),
        Column("OS-Image", at("status", "nodeInfo", "osImage"), wide=True),
        Column("Kernel-Version", at("status", "nodeInfo", "kernelVersion"), wide=True),
        Column("Container-Runtime", at("status", "nodeInfo", "containerRuntimeVersion"), wide=True),
    ),
    "Pod": (
        Column("Ready", _ready_containers),
        Column("Status", at("testbed", "state")),
        Column("Restarts", at("testbed", "restarts")),
        AGE,
        Column("IP", at("status", "podIP"), wide=True),
        Column("Node", at("spec", "nodeName"), wide=True),
        Column("Nominated Node", lambda _: None, wide=True),
        Column("Readiness Gates", lambda _: None, wide=True),
    ),
    "Deployment": (
        Column("Ready", _ready_of("readyReplicas", at("spec", "replicas"))),
        Column("Up-to-date", at("status", "updatedReplicas"), type="integer"),
        Column("Available", at("status", "availableReplicas"), type="integer"),
        AGE,
        *_TEMPLATE,
    ),
    "ReplicaSet": (
        Column("Desired", at("spec", "replicas"), type="integer"),
        Column("Current", at("status", "replicas"), type="integer"),
        Column("Ready", at("status", "readyReplicas"), type="integer"),
        AGE,
        *_TEMPLATE,
    ),
    "DaemonSet": (
        Column("Desired", at("status", "desiredNumberScheduled"), type="integer"),
        Column("Current", at("status", "currentNumberScheduled"), type="integer"),
        Column("Ready", at("status", "numberReady"), type="integer"),
        Column("Up-to-date", at("status", "updatedNumberScheduled"), type="integer"),
        Column("Available", at("status", "numberAvailable"), type="integer"),
        Column("Node Selector", lambda item: _plain_labels(_template(item).get("nodeSelector"))),
        AGE,
        *_TEMPLATE,
    ),
    "Service": (
        Column("Type", at("spec", "type")),
        Column("Cluster-IP", at("spec", "clusterIP")),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", lambda item: _plain_labels(item["spec"].get("selector")), wide=True),
    ),
    "Namespace": (Column("Status", at("status", "phase")), AGE),
    "Endpoints": (Column("Endpoints", _endpoints), AGE),
    "ConfigMap": (Column("Data", _data, type="integer"), AGE),
    "Secret": (Column("Type", at("type")), Column("Data", _data, type="integer"), AGE),
    "NetworkPolicy": (
        Column("Pod-Selector", lambda item: selector_text(item["spec"].get("podSelector") or {})),
        AGE,
    ),
}
