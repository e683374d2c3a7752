"""The subset of Kubernetes' v1 Service that the testbed honours."""

from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from testbed.cluster.manifest import Metadata
from testbed.cluster.manifest_model import LabelKey, LabelValue, Model, Port
from testbed.cluster.name_rules import check_address, check_port_name, check_port_or_name, within

NODE_PORTS = (30000, 32767)
DEFAULT_AFFINITY_S = 10800
HEADLESS = "None"


def _check_cluster_ip(text: str) -> str:
    return text if text == HEADLESS else check_address(text)


class ServicePort(Model):
    """One port of a Service."""

    port: Port
    name: Annotated[str, AfterValidator(check_port_name)] | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    target_port: Annotated[int | str, PlainValidator(check_port_or_name)] | None = None
    """Of the pods: a number, or the name of a container's port; None: the same number."""
    node_port: Annotated[int, within(*NODE_PORTS)] | None = None
    """On which every node answers too; None: chosen, where the Service is of type NodePort."""


class ClientIPConfig(Model):
    """How long a client stays with its endpoint."""

    timeout_seconds: Annotated[int, within(1, 86400)] = DEFAULT_AFFINITY_S


class SessionAffinityConfig(Model):
    """Settings of the session affinity."""

    client_ip: ClientIPConfig = Field(default_factory=ClientIPConfig, alias="clientIP")


class ServiceSpec(Model):
    """Which pods serve, and how they are reached."""

    selector: Annotated[dict[LabelKey, LabelValue], Field(min_length=1)]
    ports: Annotated[tuple[ServicePort, ...], Field(strict=False, min_length=1)]
    type: Literal["ClusterIP", "NodePort"] = "ClusterIP"
    cluster_ip: Annotated[str, AfterValidator(_check_cluster_ip)] | None = Field(default=None, alias="clusterIP")
    """An address of the service range; `None` as text: headless, known by name only; left out: chosen."""
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    """Local: a node port sends only to pods of its own node, and they see who asks."""


class Service(Model):
    """A v1 Service."""

    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def headless(self) -> bool:
        """Whether it has no cluster IP."""
        return self.spec.cluster_ip == HEADLESS

    @property
    def affinity_s(self) -> int | None:
        """How many seconds after its last connection a client comes back to the same pod; None: no affinity."""
        if self.spec.session_affinity == "None":
            return None
        return (self.spec.session_affinity_config or SessionAffinityConfig()).client_ip.timeout_seconds

    def resolved(self, cluster_ip: IPv4Address | None, node_ports: tuple[int | None, ...]) -> "Service":
        """The same with the cluster IP and node ports that were chosen for it."""
        ports = tuple(
            port.model_copy(update={"node_port": chosen, "target_port": port.target_port or port.port})
            for port, chosen in zip(self.spec.ports, node_ports, strict=True)
        )
        address = HEADLESS if cluster_ip is None else str(cluster_ip)
        return self.model_copy(update={"spec": self.spec.model_copy(update={"cluster_ip": address, "ports": ports})})

    def to_manifest(self) -> dict[str, Any]:
        """The service as a manifest again, without fields that have their default value."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest}
