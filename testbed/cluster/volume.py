"""Volumes of a pod: empty directories, files of the machine; ConfigMaps, Secrets and the pod's fields as files."""

from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from testbed.cluster.environment import ConfigKind, ContainerResource
from testbed.cluster.manifest_model import LabelName, Model
from testbed.cluster.name_rules import (
    check_config_key,
    check_file_field,
    check_mount_path,
    check_object_name,
    check_volume_file,
    within,
    wrong,
)
from testbed.cluster.quantity import bytes_of, check_quantity

EMPTY_DIR_BYTES = 256 << 20
"""Size of an emptyDir without sizeLimit. Kubernetes sets none, with a disk below; here it is memory."""
FILE_MODE = 0o644
FileMode = Annotated[int, within(0, 0o777)]


class EmptyDir(Model):
    """A directory that lives as long as the pod."""

    medium: Literal["", "Memory"] = ""
    """Both are memory."""
    size_limit: Annotated[int | str, PlainValidator(check_quantity)] | None = None
    """Its capacity, such as 64Mi; a container that writes more gets ENOSPC. Without it, or with 0, it is 256Mi."""

    @property
    def size(self) -> int:
        """Return the capacity in bytes."""
        return bytes_of(self.size_limit or 0) or EMPTY_DIR_BYTES


class HostPath(Model):
    """A directory or file of the machine; `type` as in Kubernetes, empty: no check."""

    path: Annotated[str, AfterValidator(check_mount_path)]
    type: Literal["", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"] = ""


class KeyToPath(Model):
    """One key as a file with another name."""

    key: Annotated[str, AfterValidator(check_config_key)]
    path: Annotated[str, AfterValidator(check_volume_file)]
    """Path below the volume."""
    mode: FileMode | None = None
    """By default the volume's defaultMode."""


Items = Annotated[tuple[KeyToPath, ...], Field(strict=False)]


class Files(NamedTuple):
    """One ConfigMap or Secret as files of a volume."""

    kind: ConfigKind
    name: str
    items: tuple[KeyToPath, ...]
    """Empty: every key as a file with its name."""
    optional: bool


class FileField(Model):
    """A field of the pod's metadata, by its path."""

    field_path: Annotated[str, AfterValidator(check_file_field)]
    api_version: Literal["v1"] = "v1"


class FieldFile(Model):
    """One field of the pod, or one resource of a container, as a file."""

    path: Annotated[str, AfterValidator(check_volume_file)]
    """Path below the volume."""
    field_ref: FileField | None = None
    resource_field_ref: ContainerResource | None = None
    mode: FileMode | None = None
    """By default the volume's defaultMode."""

    @model_validator(mode="after")
    def _a_source(self) -> "FieldFile":
        if (self.field_ref is None) == (self.resource_field_ref is None):
            got = "none" if self.field_ref is None else "both"
            raise wrong("a file has one source", got, "fieldRef: {fieldPath: metadata.labels} or resourceFieldRef: {…}")
        if self.resource_field_ref is not None and self.resource_field_ref.container_name is None:
            raise wrong("a file's resource is that of a container", "none", "containerName: NAME in resourceFieldRef")
        return self


class PodFields(NamedTuple):
    """The pod's own fields as files of a volume."""

    items: tuple[FieldFile, ...]


FieldItems = Annotated[tuple[FieldFile, ...], Field(strict=False)]


class DownwardVolume(Model):
    """The pod's own fields as files; those of labels and annotations are updated with it."""

    items: FieldItems = ()
    default_mode: FileMode = FILE_MODE


class DownwardProjection(Model):
    """The pod's own fields as files of a projected volume."""

    items: FieldItems = ()


class ConfigMapVolume(Model):
    """A ConfigMap's keys as files, which are updated with it."""

    name: Annotated[str, AfterValidator(check_object_name)]
    items: Items = ()
    """The keys that become files; by default all."""
    default_mode: FileMode = FILE_MODE
    optional: bool = False
    """True: if the object or a key is missing, its files are missing."""


class SecretVolume(Model):
    """A Secret's keys as files, which are updated with it."""

    secret_name: Annotated[str, AfterValidator(check_object_name)]
    items: Items = ()
    """The keys that become files; by default all."""
    default_mode: FileMode = FILE_MODE
    optional: bool = False
    """True: if the object or a key is missing, its files are missing."""


class ObjectProjection(Model):
    """A ConfigMap or Secret as files of a projected volume."""

    name: Annotated[str, AfterValidator(check_object_name)]
    items: Items = ()
    """The keys that become files; by default all."""
    optional: bool = False
    """True: if the object or a key is missing, its files are missing."""


class Projection(Model):
    """One source of a projected volume."""

    empty_settings_say_nothing = False

    config_map: ObjectProjection | None = None
    secret: ObjectProjection | None = None
    downward_api: DownwardProjection | None = Field(default=None, alias="downwardAPI")

    @model_validator(mode="after")
    def _a_source(self) -> "Projection":
        fields = type(self).model_fields
        given = [field.alias or name for name, field in fields.items() if getattr(self, name) is not None]
        if len(given) != 1:
            want = "configMap or secret: {name: …}, or downwardAPI: {items: […]}"
            raise wrong("a projection has one source", " and ".join(given) or "none", want)
        return self

    @property
    def files(self) -> Files | PodFields:
        """Return what becomes files."""
        if self.downward_api is not None:
            return PodFields(self.downward_api.items)
        kind: ConfigKind = "ConfigMap" if self.config_map is not None else "Secret"
        given = self.config_map or self.secret
        assert given is not None
        return Files(kind, given.name, given.items, given.optional)


class Projected(Model):
    """ConfigMaps, Secrets and the pod's own fields in one directory."""

    sources: Annotated[tuple[Projection, ...], Field(strict=False, min_length=1)]
    default_mode: FileMode = FILE_MODE


class Volume(Model):
    """A directory shared by containers of one pod."""

    empty_settings_say_nothing = False
    """Each source is a different volume, even without settings."""

    name: LabelName
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downward_api: DownwardVolume | None = Field(default=None, alias="downwardAPI")
    projected: Projected | None = None

    @model_validator(mode="before")
    @classmethod
    def _an_empty_directory_without_a_source(cls, given: object) -> object:
        if isinstance(given, dict) and {key for key, value in given.items() if value is not None} <= {"name"}:
            return {**given, "emptyDir": {}}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        fields = type(self).model_fields
        given = [field.alias or name for name, field in fields.items() if getattr(self, name) is not None]
        if len(given) > 2:
            want = "one of them, such as emptyDir: {} or configMap: {name: …}"
            raise wrong("a volume has one source", ", ".join(given[1:]), want)
        return self

    @property
    def files(self) -> tuple[Files | PodFields, ...]:
        """Return what its files are made of; nothing for other kinds of volumes."""
        if self.config_map is not None:
            given = self.config_map
            return (Files("ConfigMap", given.name, given.items, given.optional),)
        if self.secret is not None:
            return (Files("Secret", self.secret.secret_name, self.secret.items, self.secret.optional),)
        if self.downward_api is not None:
            return (PodFields(self.downward_api.items),)
        return tuple(one.files for one in self.projected.sources) if self.projected is not None else ()

    @property
    def default_mode(self) -> int:
        """Return the mode of files without their own."""
        given = self.config_map or self.secret or self.downward_api or self.projected
        return given.default_mode if given is not None else FILE_MODE
