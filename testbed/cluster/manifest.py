"""The subset of Kubernetes' v1 Pod that the testbed honours, field names as in the Kubernetes API.

A field that is not here is refused, never ignored: a manifest that is taken does what it says.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from testbed.cluster.name_rules import (
    check_environment_name,
    check_label_key,
    check_label_name,
    check_label_value,
    check_mount_path,
    check_port_name,
    check_process_text,
    check_sub_path,
    within,
    wrong,
)

LAST_PORT = 65535  # RFC 768: 16 bits
LAST_USER = 65535  # what a user namespace of one block maps; `nobody` is 65534
DEFAULT_GRACE_PERIOD_S = 10  # Kubernetes waits 30 s; processes of a lab need no flush to distant disks


class Model(BaseModel):
    """A mapping of a manifest: immutable, no conversions, no unknown keys, camelCase outside and snake_case inside."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


LabelName = Annotated[str, AfterValidator(check_label_name)]
LabelKey = Annotated[str, AfterValidator(check_label_key)]
LabelValue = Annotated[str, AfterValidator(check_label_value)]
ProcessText = Annotated[str, AfterValidator(check_process_text)]
Port = Annotated[int, within(1, LAST_PORT)]


class Metadata(Model):
    """Name and labels of an object."""

    name: LabelName
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class EnvironmentVariable(Model):
    """One variable of a container; `$(OTHER)` in its value is replaced as in Kubernetes."""

    name: Annotated[str, AfterValidator(check_environment_name)]
    value: ProcessText = ""


class ContainerPort(Model):
    """A port that a container listens on."""

    container_port: Port
    protocol: Literal["TCP", "UDP"] = "TCP"
    name: Annotated[str, AfterValidator(check_port_name)] | None = None


class VolumeMount(Model):
    """Where a container sees a volume of its pod."""

    name: LabelName
    mount_path: Annotated[str, AfterValidator(check_mount_path)]
    read_only: bool = False
    sub_path: Annotated[str, AfterValidator(check_sub_path)] | None = None


class SecurityContext(Model):
    """Rights of a container's processes."""

    privileged: bool = False
    run_as_user: Annotated[int, within(0, LAST_USER)] | None = None


class Container(Model):
    """One container; `image` is the name of a recipe of the testbed, nothing is pulled."""

    name: LabelName
    image: str
    command: Annotated[tuple[ProcessText, ...], Field(strict=False, min_length=1)] | None = None
    args: Annotated[tuple[ProcessText, ...], Field(strict=False)] | None = None
    env: Annotated[tuple[EnvironmentVariable, ...], Field(strict=False)] = ()
    working_dir: Annotated[str, AfterValidator(check_mount_path)] | None = None
    ports: Annotated[tuple[ContainerPort, ...], Field(strict=False)] = ()
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(strict=False)] = ()
    security_context: SecurityContext = Field(default_factory=SecurityContext)


class EmptyDir(Model):
    """A directory that lives as long as the pod."""


class HostPath(Model):
    """A directory or file of the machine; `type` as in Kubernetes, empty: no check."""

    path: Annotated[str, AfterValidator(check_mount_path)]
    type: Literal["", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"] = ""


class Volume(Model):
    """A directory that containers of one pod share."""

    name: LabelName
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        sources = [name for name in ("emptyDir", "hostPath") if getattr(self, _SOURCES[name]) is not None]
        if len(sources) != 1:
            raise wrong("a volume has one source", ", ".join(sources) or "none", "emptyDir: {} or hostPath: {path: …}")
        return self


_SOURCES = {"emptyDir": "empty_dir", "hostPath": "host_path"}


class PodSpec(Model):
    """What runs in a pod and where."""

    containers: Annotated[tuple[Container, ...], Field(strict=False, min_length=1)]
    node_name: str | None = None
    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = ()
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    share_process_namespace: bool = False
    hostname: LabelName | None = None
    termination_grace_period_seconds: Annotated[int, within(0, 3600)] = DEFAULT_GRACE_PERIOD_S


class Pod(Model):
    """A v1 Pod."""

    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: Metadata
    spec: PodSpec

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    def on_node(self, node: str) -> "Pod":
        """The same pod, placed on `node`."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"node_name": node})})

    def to_manifest(self) -> dict[str, Any]:
        """The pod as a manifest again, without fields that have their default value."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest}
