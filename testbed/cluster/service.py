"""The subset of Kubernetes' v1 Service that the testbed supports."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator

from agent.kernel.values import Family, IPAddress
from testbed.cluster.manifest import Metadata, NamespacedObject
from testbed.cluster.manifest_model import LEFT_OUT_AT_ZERO, LabelKey, LabelName, LabelValue, Model, Port
from testbed.cluster.name_rules import check_address, check_port_or_name, within, wrong

NODE_PORTS = (30000, 32767)
DEFAULT_AFFINITY_S = 10800
HEADLESS = "None"


IpFamily = Literal["IPv4", "IPv6"]
VERSIONS: Mapping[IpFamily, Family] = {"IPv4": 4, "IPv6": 6}


def _check_cluster_ip(text: str) -> str:
    if ":" in text:
        try:
            return str(IPv6Address(text))
        except ValueError:
            raise wrong("not an IPv6 address", text, "one such as fd00:10:96::80") from None
    return text if text == HEADLESS else check_address(text)


class ServicePort(Model):
    """One port of a Service."""

    port: Port
    name: LabelName | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    target_port: Annotated[Annotated[int | str, PlainValidator(check_port_or_name)] | None, LEFT_OUT_AT_ZERO] = None
    """Of the pods: a number, or the name of a container's port; None: the same number."""
    node_port: Annotated[Annotated[int, within(*NODE_PORTS)] | None, LEFT_OUT_AT_ZERO] = None
    """A port from 30000 to 32767 that every node also answers on; None: chosen, if the Service has type NodePort."""


class ClientIPConfig(Model):
    """How long a client stays with its endpoint."""

    timeout_seconds: Annotated[int, within(1, 86400)] = DEFAULT_AFFINITY_S


class SessionAffinityConfig(Model):
    """Settings of the session affinity."""

    client_ip: ClientIPConfig = Field(default_factory=ClientIPConfig, alias="clientIP")


class ServiceSpec(Model):
    """The selected pods, and how they are reached."""

    selector: Annotated[dict[LabelKey, LabelValue], Field(min_length=1)]
    ports: Annotated[tuple[ServicePort, ...], Field(strict=False, min_length=1)]
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    load_balancer_ip: Annotated[str, AfterValidator(check_address)] | None = Field(default=None, alias="loadBalancerIP")
    """On the gateway's subnet; by default chosen. The gateway and every node answer."""
    publish_not_ready_addresses: bool = False
    """Whether pods that are not ready are endpoints too."""
    cluster_ip: Annotated[str, AfterValidator(_check_cluster_ip)] | None = Field(default=None, alias="clusterIP")
    """An address of 10.96.0.0/12 (.0.10 is the DNS); by default one that follows from the name. `None`: headless."""
    cluster_ips: Annotated[tuple[Annotated[str, AfterValidator(_check_cluster_ip)], ...], Field(strict=False)] = Field(
        default=(), alias="clusterIPs"
    )
    """One of each family, the first of them `clusterIP`; by default chosen."""
    ip_families: Annotated[tuple[IpFamily, ...], Field(strict=False, max_length=2)] = ()
    """The first is that of `clusterIP`; by default IPv4, then IPv6."""
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    """Whether it has addresses of both families; by default of one."""
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    """Local: a node port forwards only to pods of its own node, and they see the client's address."""


class Service(NamespacedObject):
    """A v1 Service."""

    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec

    @property
    def has_node_ports(self) -> bool:
        """Return whether every node answers on a port of its own."""
        return self.spec.type != "ClusterIP"

    @property
    def external_address(self) -> IPv4Address | None:
        """Return the address of a LoadBalancer, once it has one."""
        asked = self.spec.load_balancer_ip
        return IPv4Address(asked) if asked is not None and self.spec.type == "LoadBalancer" else None

    def at_external_address(self, address: IPv4Address) -> "Service":
        """Return the same with this external address."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"load_balancer_ip": str(address)})})

    @property
    def headless(self) -> bool:
        """Return whether it has no cluster IP."""
        return self.spec.cluster_ip == HEADLESS

    @property
    def affinity_s(self) -> int | None:
        """Return how many seconds after its last connection a client returns to the same pod; None: no affinity."""
        if self.spec.session_affinity == "None":
            return None
        return (self.spec.session_affinity_config or SessionAffinityConfig()).client_ip.timeout_seconds

    def families(self, dual_stack: bool) -> tuple[Family, ...]:
        """Return the IP versions of its addresses, in order, on a network with both families or only IPv4."""
        spec = self.spec
        named = [VERSIONS[family] for family in spec.ip_families]
        if not named and spec.cluster_ip is not None and ":" in spec.cluster_ip:
            named = [6]
        both = spec.ip_family_policy in ("PreferDualStack", "RequireDualStack") or len(named) > 1
        every: list[Family] = [*named, 4, 6] if both else named or [4]
        order = tuple(dict.fromkeys(every))
        return tuple(family for family in order if family == 4 or dual_stack)

    def address_of(self, family: Family) -> IPAddress | None:
        """Return its cluster IP of that family, once allocated; None if it has none."""
        own = self.spec.cluster_ips or ((self.spec.cluster_ip,) if self.spec.cluster_ip else ())
        found = [ip_address(one) for one in own if one != HEADLESS]
        return next((one for one in found if one.version == family), None)

    def resolved(self, addresses: Sequence[IPAddress], node_ports: tuple[int | None, ...]) -> "Service":
        """Return the same with the cluster IPs, one for each family and none for a headless one, and node ports."""
        ports = tuple(
            port.model_copy(update={"node_port": chosen, "target_port": port.target_port or port.port})
            for port, chosen in zip(self.spec.ports, node_ports, strict=True)
        )
        texts = tuple(map(str, addresses)) or (HEADLESS,)
        chosen: dict[str, object] = {"cluster_ip": texts[0], "ports": ports}
        if len(texts) > 1:
            chosen |= {"cluster_ips": texts, "ip_families": tuple(f"IPv{address.version}" for address in addresses)}
        return self.model_copy(update={"spec": self.spec.model_copy(update=chosen)})
