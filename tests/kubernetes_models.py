"""Objects of `get -o json` read by the models of Kubernetes' official Python client, and held against their fields."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes import client

MODELS = {
    "Node": "V1Node",
    "Pod": "V1Pod",
    "ReplicaSet": "V1ReplicaSet",
    "Deployment": "V1Deployment",
    "DaemonSet": "V1DaemonSet",
    "Service": "V1Service",
    "Namespace": "V1Namespace",
    "NetworkPolicy": "V1NetworkPolicy",
    "ConfigMap": "V1ConfigMap",
    "Secret": "V1Secret",
    "Endpoints": "V1Endpoints",
    "Event": "CoreV1Event",
}
"""Of each kind that Kubernetes has."""
OWN = "testbed"
PRIMITIVES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Response:
    """What the client would have got over HTTP."""

    data: str


def deserialized(value: Any, kind: str, *, is_list: bool = False) -> Any:  # noqa: ANN401 - the client has no types
    """Return the client's model of an object, or of a list of them. Raises ValueError for what it does not take."""
    return client.ApiClient().deserialize(Response(json.dumps(value)), MODELS[kind] + "List" * is_list)


def strangers(value: Any, model: str, at: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield a line for each field that the model does not have, and each value that is not of its kind.

    The client passes over the one and converts the other. `testbed` at the top is our own.
    """
    if match := re.fullmatch(r"list\[(.*)\]", model):
        for number, item in enumerate(value):
            yield from strangers(item, match[1], f"{at}[{number}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", model):
        for name, item in value.items():
            yield from strangers(item, match[1], f"{at}.{name}")
    elif model == "datetime":
        if not RFC_3339.fullmatch(str(value)):
            yield f"{at}: {value!r} is no time"
    elif model in PRIMITIVES:
        if not isinstance(value, PRIMITIVES[model]) or (isinstance(value, bool) and model != "bool"):
            yield f"{at}: {value!r} is no {model}"
    elif model != "object":
        yield from _strange_fields(value, getattr(client, model), at)


def _strange_fields(value: Any, model: Any, at: str) -> Iterator[str]:  # noqa: ANN401 - the client has no types
    fields = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
    for name, item in value.items():
        if name in fields:
            yield from strangers(item, fields[name], f"{at}.{name}")
        elif at or name != OWN:
            yield f"{at}.{name} is not in {model.__name__}"
