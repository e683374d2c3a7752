"""Removes parts of a pod's manifest that its stand-ins do not use, with a warning. Pure.

A stand-in is our own program: it reads no settings or data of the image's program. So a volume that only stand-ins
mount may be an empty directory, whatever its source, and variables from elsewhere are not needed.
"""

from collections.abc import Sequence
from typing import Any

from testbed.cluster.environment import ValueSource
from testbed.cluster.image_names import ImageRule, meaning_of
from testbed.cluster.validation import Source
from testbed.cluster.volume import Projection, Volume
from testbed.cluster.yaml_source import Path

SOURCES = {"name"} | {field.alias or name for name, field in Volume.model_fields.items()}
PROJECTED = {field.alias or name for name, field in Projection.model_fields.items()}
MACHINE = "hostPath"
"""Files of the machine that the image's program needs may be missing here."""
VALUES = {field.alias or name for name, field in ValueSource.model_fields.items()}
WITH_TEMPLATE = ("Deployment", "ReplicaSet", "DaemonSet")
Object = dict[str, Any]


def simplify(source: Source, rules: Sequence[ImageRule]) -> None:
    """Remove from the document what its stand-ins do not need."""
    document = source.document.value
    path: Path = ("spec", "template", "spec") if document.get("kind") in WITH_TEMPLATE else ("spec",)
    spec = document
    for step in path:
        spec = spec.get(step) if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("containers"), list):
        return
    containers = [one for key in ("containers", "initContainers") for one in _mappings(spec.get(key))]
    real = [one for one in containers if not _is_stand_in(one, rules)]
    if len(real) == len(containers):
        return
    used = {mount.get("name") for one in real for mount in _mappings(one.get("volumeMounts"))}
    changed = dict(spec)
    if isinstance(spec.get("volumes"), list):
        changed["volumes"] = [
            _volume(source, (*path, "volumes", number), volume, used) for number, volume in enumerate(spec["volumes"])
        ]
    changed["containers"] = [
        _container(source, (*path, "containers", number), one) if _is_stand_in(one, rules) else one
        for number, one in enumerate(spec["containers"])
    ]
    source.replace_value(_replaced(document, path, changed))


def _is_stand_in(container: object, rules: Sequence[ImageRule]) -> bool:
    image = container.get("image") if isinstance(container, dict) else None
    meaning = meaning_of(image, rules) if isinstance(image, str) else None
    return meaning is not None and meaning.stand_in


def _volume(source: Source, path: Path, volume: object, used: set[object]) -> object:
    if not isinstance(volume, dict) or volume.get("name") in used or len(volume) != 2:
        return volume
    (other,) = set(volume) - {"name"}
    projected = volume[other].get("sources") if other == "projected" and isinstance(volume[other], dict) else None
    if other in SOURCES - {MACHINE} and all(set(one) <= PROJECTED for one in _mappings(projected)):
        return volume
    source.warn((*path, other), "an empty directory: only stand-ins mount it, and they read nothing", at_key=True)
    return {"name": volume["name"], "emptyDir": {}}


def _container(source: Source, path: Path, container: Object) -> Object:
    if not isinstance(container.get("env"), list):
        return container
    variables = [_variable(source, (*path, "env", number), one) for number, one in enumerate(container["env"])]
    return {**container, "env": variables}


def _variable(source: Source, path: Path, variable: object) -> object:
    value_from = variable.get("valueFrom") if isinstance(variable, dict) else None
    if not isinstance(variable, dict) or not isinstance(value_from, dict) or set(value_from) <= VALUES:
        return variable
    source.warn((*path, "valueFrom"), "ignored: a stand-in needs no variables", at_key=True)
    return {key: value for key, value in variable.items() if key != "valueFrom"}


def _mappings(value: object) -> list[Object]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _replaced(document: Object, path: Path, value: object) -> Object:
    first, rest = str(path[0]), path[1:]
    return {**document, first: _replaced(document[first], rest, value) if rest else value}
