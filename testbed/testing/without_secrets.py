"""A bundle's view of Secrets: their keys, never their values. Pure."""

from collections.abc import Sequence
from typing import Any

from testbed.cluster.kinds import SECRET

LEFT_OUT = "left out"
VALUES = ("data", "stringData")
REMARK = b"# values of Secrets are left out, and so are comments\n"


def without_values(found: object) -> object:
    """Return the same object, or List of objects; a Secret without its values."""
    if not isinstance(found, dict):
        return found
    if isinstance(found.get("items"), list):
        return {**found, "items": [without_values(one) for one in found["items"]]}
    if found.get("kind") != SECRET.name:
        return found
    return {key: _left_out(value) if key in VALUES else value for key, value in found.items()}


def _left_out(values: object) -> object:
    return dict.fromkeys(values, LEFT_OUT) if isinstance(values, dict) else LEFT_OUT


def file_without_values(data: bytes) -> bytes:
    """Return a stream of manifests unchanged, or rewritten if it contains a Secret."""
    if SECRET.name.encode() not in data:
        return data
    # Of the extra `lab`; the pytest plugin is loaded without it.
    from testbed.cluster.yaml_source import dump_documents, read_documents

    documents, problems = read_documents(data, "")
    if problems:
        return b"# left out: it may have Secrets, and cannot be read\n"
    values: Sequence[Any] = [document.value for document in documents]
    shown = [without_values(value) for value in values]
    return data if shown == values else REMARK + dump_documents(shown).encode()
