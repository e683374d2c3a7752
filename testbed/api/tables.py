"""Objects as kubectl prints them: a meta.k8s.io/v1 Table with Kubernetes' own columns. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from testbed.cluster.columns import at, joined, selector_text
from testbed.control.wire import WrittenOnce

Object = Mapping[str, Any]
Cell = Callable[[Object], object]
NONE = "<none>"
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "y": 365 * 86_400}
AGES: Sequence[tuple[int, str, str | None]] = (
    (2 * 60, "s", None),
    (10 * 60, "m", "s"),
    (3 * 3_600, "m", None),
    (8 * 3_600, "h", "m"),
    (48 * 3_600, "h", None),
    (8 * 86_400, "d", "h"),
    (2 * 365 * 86_400, "d", None),
    (8 * 365 * 86_400, "y", "d"),
)
"""Below so many seconds: the unit and the one for the rest, as in HumanDuration of k8s.io/apimachinery."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a Table; `wide` ones are printed with `-o wide` alone."""

    name: str
    cell: Cell
    wide: bool = False
    type: str = "string"


def table(kind: str, items: Sequence[Object], metadata: Object, *, whole: bool, heading: bool = True) -> Object:
    """Return a Table of objects of a kind; `whole`: with the full objects, not only their metadata."""
    shown = [*EVENT_COLUMNS] if kind == "Event" else [TableColumn("Name", NAME), *COLUMNS.get(kind, (AGE,))]
    rows = [
        WrittenOnce(
            {"cells": tuple(_cell(column, item) for column in shown), "object": item if whole else _partial(item)}
        )
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
        "metadata": metadata,
        "columnDefinitions": definitions if heading else [],
        "rows": rows,
    }


def _partial(item: Object) -> Object:
    return WrittenOnce({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]})


def _cell(column: TableColumn, item: Object) -> object:
    value = column.cell(item)
    if column.type == "integer":
        return 0 if value is None else value
    return NONE if value in (None, "") else str(value)


_moment = lru_cache(maxsize=4096)(datetime.fromisoformat)


def age(since: str | None, now: datetime | None = None) -> str:
    """Return how long ago a time was, in kubectl's form: 45s, 3m20s, 45m, 5h12m, 9h, 2d3h, 9d, 2y30d."""
    if not since:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.now(UTC)) - _moment(since)).total_seconds()))
    unit, smaller = next(((unit, smaller) for below, unit, smaller in AGES if seconds < below), ("y", None))
    whole, rest = divmod(seconds, UNITS_S[unit])
    more = 0 if smaller is None else rest // UNITS_S[smaller]
    return f"{whole}{unit}{more}{smaller}" if more else f"{whole}{unit}"


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


def joined_tightly(parts: Iterable[str | None]) -> str | None:
    """Join with commas without blanks, as kubectl does."""
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
AGE = TableColumn("Age", lambda item: age(str(CREATED(item) or "")))
_TEMPLATE = (
    TableColumn("Containers", _names, wide=True),
    TableColumn("Images", _images, wide=True),
    TableColumn("Selector", _selector, wide=True),
)
EVENT_COLUMNS = (
    TableColumn("Last Seen", lambda item: age(item.get("lastTimestamp"))),
    TableColumn("Type", at("type")),
    TableColumn("Reason", at("reason")),
    TableColumn("Object", lambda item: f"{item['involvedObject']['kind'].lower()}/{item['involvedObject']['name']}"),
    TableColumn("Message", at("message")),
)
COLUMNS: Mapping[str, Sequence[TableColumn]] = {
    "Node": (
        TableColumn("Status", _node_status),
        TableColumn("Roles", lambda _: None),
        AGE,
        TableColumn("Version", at("status", "nodeInfo", "kubeletVersion")),
        TableColumn("Internal-IP", _first_address, wide=True),
        TableColumn("External-IP", lambda _: None, wide=True),
        TableColumn("OS-Image", at("status", "nodeInfo", "osImage"), wide=True),
        TableColumn("Kernel-Version", at("status", "nodeInfo", "kernelVersion"), wide=True),
        TableColumn("Container-Runtime", at("status", "nodeInfo", "containerRuntimeVersion"), wide=True),
    ),
    "Pod": (
        TableColumn("Ready", _ready_containers),
        TableColumn("Status", at("testbed", "state")),
        TableColumn("Restarts", at("testbed", "restarts")),
        AGE,
        TableColumn("IP", at("status", "podIP"), wide=True),
        TableColumn("Node", at("spec", "nodeName"), wide=True),
        TableColumn("Nominated Node", lambda _: None, wide=True),
        TableColumn("Readiness Gates", lambda _: None, wide=True),
    ),
    "Deployment": (
        TableColumn("Ready", _ready_of("readyReplicas", at("spec", "replicas"))),
        TableColumn("Up-to-date", at("status", "updatedReplicas"), type="integer"),
        TableColumn("Available", at("status", "availableReplicas"), type="integer"),
        AGE,
        *_TEMPLATE,
    ),
    "ReplicaSet": (
        TableColumn("Desired", at("spec", "replicas"), type="integer"),
        TableColumn("Current", at("status", "replicas"), type="integer"),
        TableColumn("Ready", at("status", "readyReplicas"), type="integer"),
        AGE,
        *_TEMPLATE,
    ),
    "DaemonSet": (
        TableColumn("Desired", at("status", "desiredNumberScheduled"), type="integer"),
        TableColumn("Current", at("status", "currentNumberScheduled"), type="integer"),
        TableColumn("Ready", at("status", "numberReady"), type="integer"),
        TableColumn("Up-to-date", at("status", "updatedNumberScheduled"), type="integer"),
        TableColumn("Available", at("status", "numberAvailable"), type="integer"),
        TableColumn("Node Selector", lambda item: _plain_labels(_template(item).get("nodeSelector"))),
        AGE,
        *_TEMPLATE,
    ),
    "Service": (
        TableColumn("Type", at("spec", "type")),
        TableColumn("Cluster-IP", at("spec", "clusterIP")),
        TableColumn("External-IP", _external),
        TableColumn("Port(s)", _ports),
        AGE,
        TableColumn("Selector", lambda item: _plain_labels(item["spec"].get("selector")), wide=True),
    ),
    "Namespace": (TableColumn("Status", at("status", "phase")), AGE),
    "Endpoints": (TableColumn("Endpoints", _endpoints), AGE),
    "ConfigMap": (TableColumn("Data", _data, type="integer"), AGE),
    "Secret": (TableColumn("Type", at("type")), TableColumn("Data", _data, type="integer"), AGE),
    "EndpointSlice": (
        TableColumn("AddressType", at("addressType")),
        TableColumn("Ports", lambda item: joined_tightly(str(port["port"]) for port in item["ports"])),
        TableColumn("Endpoints", lambda item: joined_tightly(one["addresses"][0] for one in item["endpoints"])),
        AGE,
    ),
    "NetworkPolicy": (
        TableColumn("Pod-Selector", lambda item: selector_text(item["spec"].get("podSelector") or {})),
        AGE,
    ),
}
