"""A pod's data from ConfigMaps, Secrets and its own fields: values of variables, and files of volumes.

Missing objects are reported in Kubernetes' own words. A stand-in reads no settings, so it waits for none. Pure,
except for the size of the machine.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from testbed.cluster.capacity import machine_size
from testbed.cluster.config_objects import ConfigObject
from testbed.cluster.downward import metadata_value, resource_value
from testbed.cluster.environment import ConfigKind, ContainerResource
from testbed.cluster.images import Values
from testbed.cluster.manifest import Container, PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.volume import FieldFile, Files, PodFields, Volume

Lookup = Callable[[ConfigKind, ObjectKey], ConfigObject | None]
"""Returns the current object; None if there is none."""


class MissingConfig(OSError):
    """A ConfigMap, Secret or key named by the pod is missing, or unsuitable for its use."""


class VolumeFile(NamedTuple):
    """One file of a volume."""

    data: bytes
    mode: int


def no_configs(kind: ConfigKind, key: ObjectKey) -> None:
    """Find nothing, for a pod without a lab."""


def values_of(pod: PodManifest, container: Container, fields: Mapping[str, str], lookup: Lookup) -> Values:
    """Return values of variables from other sources; `fields` are the pod's own, by path. Raises MissingConfig."""
    namespace = pod.metadata.namespace
    from_objects: dict[str, str] = {}
    for source in container.env_from:
        kind, reference = source.object
        found = lookup(kind, ObjectKey(namespace, reference.name))
        if found is None:
            if reference.optional or container.stand_in:
                continue
            raise MissingConfig(f'{kind.lower()} "{reference.name}" not found')
        for key, value in found.variables.items():
            from_objects[source.prefix + key] = _variable(source.prefix + key, value)
    by_name: dict[str, str] = {}
    for variable in container.env:
        if variable.value_from is None:
            continue
        if variable.value_from.field_ref is not None:
            by_name[variable.name] = fields[variable.value_from.field_ref.field_path]
            continue
        if variable.value_from.resource_field_ref is not None:
            by_name[variable.name] = _resource(pod, container.name, variable.value_from.resource_field_ref)
            continue
        assert variable.value_from.key is not None
        kind, wanted = variable.value_from.key
        found = lookup(kind, ObjectKey(namespace, wanted.name))
        if found is not None and wanted.key in found.variables:
            by_name[variable.name] = _variable(variable.name, found.variables[wanted.key])
        elif not wanted.optional and not container.stand_in:
            missing = f'{kind.lower()} "{wanted.name}" not found'
            raise MissingConfig(
                missing if found is None else f"couldn't find key {wanted.key} in {kind} {namespace}/{wanted.name}"
            )
    return Values(from_objects, by_name)


def _variable(name: str, value: bytes) -> str:
    if b"\0" in value:
        raise MissingConfig(f"variable {name}: a NUL character, with which no program can be started")
    return value.decode(errors="surrogateescape")


def _resource(pod: PodManifest, own: str, wanted: ContainerResource) -> str:
    of = next(one for one in pod.spec.all_containers if one.name == (wanted.container_name or own))
    return resource_value(wanted, of.resources, machine_size())


def files_of(pod: PodManifest, volume: Volume, lookup: Lookup, uid: str = "") -> Mapping[str, VolumeFile]:
    """Return the files of a volume of ConfigMaps, Secrets and the pod's fields, by path. Raises MissingConfig."""
    found: dict[str, VolumeFile] = {}
    for files in volume.files:
        if isinstance(files, PodFields):
            found |= {item.path: _field(pod, uid, item, volume.default_mode) for item in files.items}
            continue
        optional = files.optional or _only_stand_ins_mount(pod, volume)
        known = lookup(files.kind, ObjectKey(pod.metadata.namespace, files.name))
        if known is None:
            if optional:
                continue
            raise MissingConfig(f'{files.kind.lower()} "{files.name}" not found')
        found |= _chosen(files, known, volume.default_mode, optional=optional)
    return found


def _field(pod: PodManifest, uid: str, item: FieldFile, mode: int) -> VolumeFile:
    if item.field_ref is not None:
        text = metadata_value(pod, uid, item.field_ref.field_path)
    else:
        assert item.resource_field_ref is not None
        text = _resource(pod, "", item.resource_field_ref)
    return VolumeFile(text.encode(errors="surrogateescape"), mode if item.mode is None else item.mode)


def _chosen(files: Files, known: ConfigObject, mode: int, *, optional: bool) -> Mapping[str, VolumeFile]:
    content = known.content
    if not files.items:
        return {key: VolumeFile(data, mode) for key, data in content.items()}
    found = {}
    for item in files.items:
        if item.key in content:
            found[item.path] = VolumeFile(content[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            word = "config" if files.kind == "ConfigMap" else "secret"
            raise MissingConfig(f"{files.kind.lower()} {files.name} references non-existent {word} key: {item.key}")
    return found


def _only_stand_ins_mount(pod: PodManifest, volume: Volume) -> bool:
    mounting = [
        container
        for container in pod.spec.all_containers
        if any(mount.name == volume.name for mount in container.volume_mounts)
    ]
    return bool(mounting) and all(container.stand_in for container in mounting)
