"""A pod's own fields and resources as text, for variables and files (Kubernetes' downward API). Pure."""

from collections.abc import Mapping

from testbed.cluster.capacity import MachineSize
from testbed.cluster.environment import ContainerResource
from testbed.cluster.manifest import PodManifest
from testbed.cluster.quantity import bytes_of, thousandths_of
from testbed.cluster.resources import Resources

_ESCAPES = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", '"': '"', "\\": "\\"}


def metadata_value(pod: PodManifest, uid: str, path: str) -> str:
    """Return a field of the pod's metadata; a label or annotation that it does not have is empty."""
    metadata = pod.metadata
    whole = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": uid,
        "metadata.labels": lines_of(metadata.labels),
        "metadata.annotations": lines_of(metadata.annotations),
    }
    if path in whole:
        return whole[path]
    name, _, key = path.partition("['")
    mapping = metadata.labels if name == "metadata.labels" else metadata.annotations
    return mapping.get(key.removesuffix("']"), "")


def lines_of(mapping: Mapping[str, str]) -> str:
    """Return `key="value"` lines, sorted, as kubelet writes them: values are quoted as in Go."""
    return "\n".join(f'{key}="{"".join(map(_escaped, mapping[key]))}"' for key in sorted(mapping))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return "\\" + _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def resource_value(wanted: ContainerResource, of: Resources, node: MachineSize) -> str:
    """Return a container's limit or request in the wanted unit, rounded up.

    Without a limit it is all that its node has, and a missing request is the limit, or 0.
    """
    which, _, resource = wanted.resource.partition(".")
    if resource == "cpu":
        unit, limit, request = thousandths_of(wanted.divisor), of.limits.thousandths, of.requests.thousandths
        most = node.thousandths
    else:
        unit, limit, request, most = bytes_of(wanted.divisor), of.limits.bytes, of.requests.bytes, node.bytes
    amount = (limit or most) if which == "limits" else (request or limit)
    return str(-(-amount // unit))
