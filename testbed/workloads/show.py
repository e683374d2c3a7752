"""Namespaces in `describe`."""

from collections.abc import Mapping

from testbed.control.answers.lab import Description
from testbed.lab.namespaces import Namespaces
from testbed.workloads.controller import Controller


def describe_namespace(name: str, namespaces: Namespaces, controllers: Mapping[str, Controller]) -> Description:
    """Return everything about one namespace, as headings and values. Raises KeyError."""
    known = namespaces.get(name)
    if known is None:
        raise KeyError(name)
    inside = {
        kind: sum(key.namespace == name for key in controller.wanted()) for kind, controller in controllers.items()
    }
    return {
        "Name": name,
        "Labels": known.wanted.labels,
        "Status": "Terminating" if known.ends else "Active",
        "Created": known.created_at,
        "Objects": {kind: number for kind, number in inside.items() if number} or "none",
        "Look inside": [f"get all -n {name}"],
    }
