"""Kinds that only clients of the API see: their objects follow from others, or have no effect. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.cluster.kinds import Kind
from testbed.cluster.without_meaning import KINDS_WITHOUT_MEANING

Object = Mapping[str, Any]
ENDPOINT_SLICE = Kind(
    name="EndpointSlice",
    api_version="discovery.k8s.io/v1",
    singular="endpointslice",
    plural="endpointslices",
)
WITHOUT_MEANING = tuple(
    Kind(name=name, api_version=version, singular=name.lower(), plural=f"{name.lower()}s", short_names=short_names)
    for (version, name), short_names in zip(KINDS_WITHOUT_MEANING, (("sa",),), strict=True)
)
"""Accepted with a warning and not stored, like in a manifest of our own `apply`."""


def endpoint_slices(endpoints: Sequence[Object]) -> list[Object]:
    """Return an EndpointSlice for each subset of the Endpoints, so for each port of a Service."""
    return [
        _slice(one["metadata"], subset, number)
        for one in endpoints
        for number, subset in enumerate(one["subsets"], start=1)
    ]


def _slice(service: Object, subset: Object, number: int) -> Object:
    ready, other = subset.get("addresses", ()), subset.get("notReadyAddresses", ())
    metadata = {
        **service,
        "name": f"{service['name']}-{number}",
        "uid": f"{service['uid']}-{number}",
        "labels": {"kubernetes.io/service-name": service["name"]},
    }
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.name,
        "metadata": metadata,
        "addressType": "IPv6" if any(":" in one["ip"] for one in (*ready, *other)) else "IPv4",
        "endpoints": [*(_endpoint(one, True) for one in ready), *(_endpoint(one, False) for one in other)],
        "ports": [{"name": "", **port} for port in subset["ports"]],
    }


def _endpoint(address: Object, is_ready: bool) -> Object:
    return {
        "addresses": [address["ip"]],
        "conditions": {"ready": is_ready, "serving": is_ready, "terminating": False},
        "nodeName": address["nodeName"],
        "targetRef": address["targetRef"],
    }
