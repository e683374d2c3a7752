"""The subset of Kubernetes' v1 Pod that the testbed supports, with the API's field names.

Other fields are refused, never ignored: an accepted manifest does what it says.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, model_validator

from testbed.cluster.environment import EnvironmentSource, EnvironmentVariable
from testbed.cluster.image_names import Meaning, meaning_of
from testbed.cluster.manifest_model import (
    LEFT_OUT_AT_ZERO,
    Annotations,
    LabelKey,
    LabelName,
    LabelValue,
    Model,
    Port,
    ProcessText,
)
from testbed.cluster.name_rules import (
    check_address,
    check_any_address,
    check_capability,
    check_host_name,
    check_mount_path,
    check_one_word,
    check_port_name,
    check_sub_path,
    within,
    wrong,
)
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey
from testbed.cluster.probe import Lifecycle, Probe
from testbed.cluster.resources import Resources, limits_of
from testbed.cluster.volume import Volume

__all__ = [
    "Container",
    "ContainerPort",
    "Metadata",
    "Model",
    "PodManifest",
    "PodSpec",
    "Probe",
    "Volume",
    "VolumeMount",
]

NON_ROOT = 65532
"""As for images without a user of their own."""
LAST_USER = 65535  # the size of a user namespace of one block; `nobody` is 65534
DEFAULT_GRACE_PERIOD_S = 10  # Kubernetes waits 30 s; processes of a lab need no flush to distant disks


HostName = Annotated[str, AfterValidator(check_host_name)]
CapabilityName = Annotated[str, AfterValidator(check_capability)]


class Metadata(Model):
    """Name and labels of an object."""

    name: LabelName
    namespace: LabelName = DEFAULT_NAMESPACE
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class NamespacedObject(Model):
    """An object of a manifest that is in a namespace: what all kinds of them share."""

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def name(self) -> str:
        """Return `metadata.name`."""
        return self.metadata.name

    @property
    def key(self) -> ObjectKey:
        """Return `metadata.namespace` and `metadata.name`."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    def to_manifest(self) -> dict[str, Any]:
        """Return the object as a manifest, without fields that have their default value."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest}


class ContainerPort(Model):
    """A port that a container listens on; with `hostPort` the node listens on it too."""

    container_port: Port
    protocol: Literal["TCP", "UDP"] = "TCP"
    name: Annotated[str, AfterValidator(check_port_name)] | None = None
    host_port: Annotated[Port | None, LEFT_OUT_AT_ZERO] = None
    host_ip: Annotated[str, AfterValidator(check_address)] | None = Field(default=None, alias="hostIP")
    """The node's address that answers; None and 0.0.0.0: all of them."""


class VolumeMount(Model):
    """The path of a pod's volume in a container."""

    name: LabelName
    mount_path: Annotated[str, AfterValidator(check_mount_path)]
    read_only: bool = False
    sub_path: Annotated[str, AfterValidator(check_sub_path)] | None = None


UserId = Annotated[int, within(0, LAST_USER)]


class PodSecurityContext(Model):
    """User and groups of a pod's processes, unless the container sets them."""

    run_as_user: UserId | None = None
    run_as_group: UserId | None = None
    run_as_non_root: bool | None = None
    fs_group: UserId | None = None
    """The group of all its emptyDirs, and a supplementary group of every process."""
    supplemental_groups: Annotated[tuple[UserId, ...], Field(strict=False)] = ()


class Capabilities(Model):
    """Capabilities added to and dropped from a container's defaults."""

    add: Annotated[tuple[CapabilityName, ...], Field(strict=False)] = ()
    drop: Annotated[tuple[CapabilityName, ...], Field(strict=False)] = ()


class SecurityContext(Model):
    """Rights of a container's processes."""

    privileged: bool = False
    run_as_user: UserId | None = None
    run_as_group: UserId | None = None
    """By default: the group of the user in the container's /etc/passwd, else 0."""
    run_as_non_root: bool | None = None
    """Refuses a container that would run as root; a stand-in then runs as user 65532."""
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool = True
    """False: no program of the container gains more rights than it was started with."""
    capabilities: Capabilities = Field(default_factory=Capabilities)


class Container(Model):
    """One container; nothing is pulled, `image` selects a recipe of the testbed."""

    name: LabelName
    image: str
    command: Annotated[tuple[ProcessText, ...], Field(strict=False, min_length=1)] | None = None
    args: Annotated[tuple[ProcessText, ...], Field(strict=False)] | None = None
    env: Annotated[tuple[EnvironmentVariable, ...], Field(strict=False)] = ()
    env_from: Annotated[tuple[EnvironmentSource, ...], Field(strict=False)] = ()
    """Every key of a ConfigMap or Secret as a variable; `env` overrides these."""
    working_dir: Annotated[str, AfterValidator(check_mount_path)] | None = None
    ports: Annotated[tuple[ContainerPort, ...], Field(strict=False)] = ()
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(strict=False)] = ()
    security_context: SecurityContext = Field(default_factory=SecurityContext)
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    """The other two wait until it succeeds; a container for which it never does is restarted."""

    lifecycle: Lifecycle = Field(default_factory=Lifecycle)
    resources: Resources = Field(default_factory=Resources)
    """Kept to where this machine has control groups; a stand-in is not limited."""

    _meaning: Meaning | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _find_what_runs(self, info: ValidationInfo) -> "Container":
        self._meaning = meaning_of(self.image, info.context or ())
        return self

    @property
    def recipe(self) -> str:
        """Return the name of the recipe; empty if there is none for this image."""
        return self._meaning.recipe if self._meaning else ""

    @property
    def stand_in(self) -> bool:
        """Return whether the recipe only replaces the image's own program."""
        return self._meaning is not None and self._meaning.stand_in

    @property
    def probes(self) -> dict[str, Probe]:
        """Return the existing probes, by key."""
        every = {
            "readinessProbe": self.readiness_probe,
            "livenessProbe": self.liveness_probe,
            "startupProbe": self.startup_probe,
        }
        return {key: probe for key, probe in every.items() if probe is not None}

    @model_validator(mode="after")
    def _one_success_is_alive(self) -> "Container":
        for kind, probe in (("liveness", self.liveness_probe), ("startup", self.startup_probe)):
            if probe is not None and probe.success_threshold != 1:
                raise wrong(f"a {kind} probe needs one success", probe.success_threshold, "successThreshold: 1")
        return self


class DnsOption(Model):
    """One option of the resolver, such as `ndots`."""

    name: Annotated[str, AfterValidator(check_one_word)]
    value: Annotated[str, AfterValidator(check_one_word)] | None = None


class DnsConfig(Model):
    """Additional settings for /etc/resolv.conf."""

    nameservers: Annotated[tuple[Annotated[str, AfterValidator(check_any_address)], ...], Field(strict=False)] = ()
    searches: Annotated[tuple[Annotated[str, AfterValidator(check_one_word)], ...], Field(strict=False)] = ()
    options: Annotated[tuple[DnsOption, ...], Field(strict=False)] = ()


class HostAlias(Model):
    """An additional line of every container's /etc/hosts."""

    ip: Annotated[str, AfterValidator(check_any_address)]
    hostnames: Annotated[tuple[HostName, ...], Field(strict=False, min_length=1)]


class PodSpec(Model):
    """What runs in a pod, and where."""

    containers: Annotated[tuple[Container, ...], Field(strict=False, min_length=1)]
    init_containers: Annotated[tuple[Container, ...], Field(strict=False)] = ()
    """They run one after the other before the containers start; a stand-in ends at once."""
    node_name: str | None = None
    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = ()
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    share_process_namespace: bool = False
    security_context: PodSecurityContext = Field(default_factory=PodSecurityContext)
    host_network: bool = False
    """The pod uses the node's own network."""
    hostname: LabelName | None = None
    subdomain: LabelName | None = None
    """The headless Service under which the pod has its own name: HOSTNAME.SUBDOMAIN."""
    host_aliases: Annotated[tuple[HostAlias, ...], Field(strict=False)] = ()
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that the node must have; every node has kubernetes.io/hostname, /os and /arch."""
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] = "ClusterFirst"
    """ClusterFirst…: the cluster's DNS, if the lab has one. Default: a node's, which has none. None: dnsConfig's."""
    dns_config: DnsConfig = Field(default_factory=DnsConfig)
    """Additional lines of /etc/resolv.conf."""
    termination_grace_period_seconds: Annotated[int, within(0, 3600)] = DEFAULT_GRACE_PERIOD_S

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """Return all containers, including init containers."""
        return (*self.init_containers, *self.containers)

    @property
    def has_limits(self) -> bool:
        """Return whether the kernel must limit any of its containers."""
        return any(limits_of(one.resources) is not None for one in self.all_containers if not one.stand_in)

    @model_validator(mode="after")
    def _a_name_server(self) -> "PodSpec":
        if self.dns_policy == "None" and not self.dns_config.nameservers:
            raise wrong("no name server", "dnsPolicy: None", "dnsConfig: {nameservers: [ADDRESS]}")
        return self

    @model_validator(mode="after")
    def _init_containers_are_not_probed(self) -> "PodSpec":
        for container in self.init_containers:
            if container.probes:
                got = f"{', '.join(container.probes)} of {container.name}"
                raise wrong("an init container has no probes", got, "them left out")
        return self


class Identity(NamedTuple):
    """User and groups of a container's processes."""

    user: int | None
    group: int | None
    groups: tuple[int, ...]
    must_not_be_root: bool


def identity_of(pod: PodSpec, container: Container) -> Identity:
    """Return the identity set by the container, else by its pod. None: root, with the group in its /etc/passwd."""
    of_pod, own = pod.security_context, container.security_context
    must_not = own.run_as_non_root if own.run_as_non_root is not None else bool(of_pod.run_as_non_root)
    user = own.run_as_user if own.run_as_user is not None else of_pod.run_as_user
    if user is None and must_not and container.stand_in:
        user = NON_ROOT
    group = own.run_as_group if own.run_as_group is not None else of_pod.run_as_group
    groups = dict.fromkeys([*of_pod.supplemental_groups, *(() if of_pod.fs_group is None else (of_pod.fs_group,))])
    return Identity(user, group, tuple(groups), must_not)


class PodManifest(NamespacedObject):
    """A v1 Pod."""

    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: Metadata
    spec: PodSpec

    def on_node(self, node: str | None) -> "PodManifest":
        """Return the same pod, placed on `node`; None: on any."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"node_name": node})})
