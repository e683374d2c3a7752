"""Namespaces, ConfigMaps and Secrets in `describe`."""

from collections.abc import Mapping

from testbed.cluster.environment import ConfigKind
from testbed.cluster.object_key import key_of
from testbed.control.answers.lab import Description
from testbed.lab.configs import Configs
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


def describe_config(name: str, kind: ConfigKind, configs: Configs) -> Description:
    """Return everything about one ConfigMap or Secret, as headings and values; a Secret's values are left out.

    Raises KeyError.
    """
    found = configs.of_kind(kind)[key_of(name)]
    secret = found.kind == "Secret"
    return {
        "Name": name,
        "Labels": found.metadata.labels or None,
        **({"Type": found.type} if found.kind == "Secret" else {}),
        "Immutable": found.immutable,
        "Data": {
            key: f"{len(value)} bytes" if secret or key not in found.variables else _shown(value.decode())
            for key, value in found.content.items()
        },
        "Look inside": [f"get {kind.lower()} {name} -o yaml"],
    }


def _shown(text: str) -> str | list[str]:
    lines = text.splitlines()
    return lines if len(lines) > 1 else text
