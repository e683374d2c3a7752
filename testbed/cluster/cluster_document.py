"""The first document of a cluster file: nodes, underlay, etcd and the overlay's own config (testbed/v1 Cluster)."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from testbed.cluster.agent_words import PLACEHOLDERS, named
from testbed.cluster.etcd_spec import EtcdSpec
from testbed.cluster.manifest import Metadata, Model
from testbed.cluster.manifest_model import LabelKey, LabelValue
from testbed.cluster.name_rules import check_mount_path, check_node_name, check_switch_name, within, wrong
from testbed.cluster.wiring import DURATION, Cable, Shaping

MIN_UNDERLAY_MTU = 576  # bytes; RFC 791 §3.1: every host must take datagrams of this size
MAX_UNDERLAY_MTU = 65535  # bytes; an IPv4 packet cannot be longer
MIN_BANDWIDTH, MAX_BANDWIDTH = 0.1, 100_000.0  # Mbit/s; one packet of 1,500 bytes takes 120 ms at the lower end
MAX_QUEUE_PACKETS = 100_000
DEFAULT_NAME = "lab"
DEFAULT_NETWORK: Mapping[str, Any] = {"Network": "10.0.0.0/16", "SubnetLen": 24, "Backend": {"Type": "udp"}}
DEFAULT_UNDERLAY = IPv4Network("192.168.8.0/24")


def _address(value: object) -> object:
    try:
        return IPv4Address(value) if isinstance(value, str) else value
    except ValueError:
        raise wrong("not an IPv4 address", value, "four numbers such as 192.168.8.227") from None


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    want = "an address and a prefix length such as 192.168.8.0/24"
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise wrong("not an IPv4 network", value, want) from None
    if "/" not in value:
        raise wrong("a network without its prefix length", value, want)
    if str(network.network_address) != value.split("/")[0]:
        raise wrong("a network with host bits", value, str(network))
    return network


def _ipv6_network(value: object) -> object:
    if not isinstance(value, str):
        return value
    want = "an address and a prefix length such as fd00:8::/64"
    try:
        network = IPv6Network(value, strict=False)
    except ValueError:
        raise wrong("not an IPv6 network", value, want) from None
    if "/" not in value:
        raise wrong("a network without its prefix length", value, want)
    if network.network_address != IPv6Address(value.split("/")[0]):
        raise wrong("a network with host bits", value, str(network))
    return network


Address = Annotated[IPv4Address, BeforeValidator(_address)]
Network = Annotated[IPv4Network, BeforeValidator(_network)]
Network6 = Annotated[IPv6Network, BeforeValidator(_ipv6_network)]


class AgentReady(Model):
    """When a foreign agent counts as ready: as soon as both exist."""

    file: Annotated[str, AfterValidator(check_mount_path)] = "/run/flannel/subnet.env"
    """Below /run."""
    device: str | None = None
    """Its overlay device; by default any whose name begins with flannel."""


class AgentSpec(Model):
    """The agent to run, and its flags."""

    args: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Additional flags for our agent."""
    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Another agent. flannel's flags are appended, unless it names `{etcd}`, `{iface}` and others itself."""
    ready: AgentReady | None = None

    @model_validator(mode="after")
    def _ours_or_another(self) -> "AgentSpec":
        if self.command is not None and self.args:
            raise wrong("args and command exclude each other", "both", "args for our agent, or command for another")
        for name in named(self.command or ()):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise wrong(
                    "no such value for an agent's command", f"{{{name}}}", f"{known}, or {{{{{name}}}}} for the text"
                )
        if self.command is None and self.ready is not None:
            raise wrong("ready belongs to command", "ready alone", "command: [PROGRAM, …] beside it")
        return self


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class CniSpec(Model):
    """CNI plugins that make pods' networks, instead of the lab itself."""

    conflist: Annotated[str, AfterValidator(check_mount_path)]
    """A network configuration list, read again for each pod; a text `{subnet}`, `{ipv6_subnet}`, `{gateway}`,
    `{network}` or `{mtu}` in it is the node's value."""
    plugins: Annotated[
        tuple[Annotated[str, AfterValidator(check_mount_path)], ...],
        BeforeValidator(_as_list),
        Field(strict=False, min_length=1),
    ]
    """Directories of plugins, or one."""
    timeout_seconds: Annotated[int, within(1, 300)] = 10
    """A plugin that takes longer is killed."""


def _duration(value: str) -> str:
    if not DURATION.fullmatch(value):
        raise wrong("not a time", value, "a number and us, ms or s, such as 10ms")
    return value


def _bandwidth(value: float) -> float:
    if not MIN_BANDWIDTH <= value <= MAX_BANDWIDTH:
        raise wrong("out of range", value, f"{MIN_BANDWIDTH:g} to {MAX_BANDWIDTH:g} Mbit/s")
    return value


def _percent(value: float) -> float:
    if not 0 <= value <= 100:
        raise wrong("out of range", value, "0 to 100 percent")
    return value


Duration = Annotated[str, AfterValidator(_duration)]


class LinkSpec(Model):
    """A cable from a node, switch or router to another; the other fields are the parameters of Mininet's TCLink."""

    ends: Annotated[tuple[str, ...], Field(strict=False)]
    bandwidth: Annotated[float, AfterValidator(_bandwidth)] | None = None
    """Mbit/s, in each direction."""
    delay: Duration | None = None
    """One way."""
    jitter: Duration | None = None
    loss: Annotated[float, AfterValidator(_percent)] | None = None
    """Percent of the packets, in each direction."""
    max_queue_size: Annotated[int, within(1, MAX_QUEUE_PACKETS)] | None = None
    """Packets queued when the link is slower than they arrive."""

    @model_validator(mode="after")
    def _two_ends(self) -> "LinkSpec":
        if len(self.ends) != 2:
            raise wrong("a link has two ends", len(self.ends), "ends: [NAME, NAME]")
        if self.jitter is not None and self.delay is None:
            raise wrong("jitter needs a delay to vary", "jitter alone", "delay: TIME beside it")
        return self

    def cable(self) -> Cable:
        """Return it as a part of a wiring."""
        shaping = Shaping(self.bandwidth, self.delay, self.jitter, self.loss, self.max_queue_size)
        return Cable(self.ends[0], self.ends[1], shaping)


SwitchName = Annotated[str, AfterValidator(check_switch_name)]


class UnderlaySpec(Model):
    """The network of the nodes themselves: a topology by name, or switches and links one by one."""

    cidr: Network = DEFAULT_UNDERLAY
    ipv6_cidr: Network6 | None = None
    """IPv6 range, on a network with EnableIPv6; None: fd00:8::/48. Each segment gets a /64 of it."""
    topology: str = "single"
    parameters: dict[str, Any] = Field(default_factory=dict)
    switches: Annotated[tuple[SwitchName, ...], Field(strict=False, min_length=1)] | None = None
    routers: Annotated[tuple[SwitchName, ...], Field(strict=False)] = ()
    links: Annotated[tuple[LinkSpec, ...], Field(strict=False, min_length=1)] | None = None
    switch: Literal["bridge", "ovs"] = "bridge"
    """The kind of switches: Linux bridges, or Open vSwitch in user space (package openvswitch-switch)."""
    gateway: Address | None = None
    """The router's address; by default number 10 of `cidr`."""
    mtu: Annotated[int, within(MIN_UNDERLAY_MTU, MAX_UNDERLAY_MTU)] = 1500
    """In bytes, including the IPv4 header, without the link header."""

    @model_validator(mode="after")
    def _one_description(self) -> "UnderlaySpec":
        given = self.model_fields_set
        explicit = sorted(given & {"switches", "routers", "links"})
        if explicit and given & {"topology", "parameters"}:
            got = " and ".join([*sorted(given & {"topology", "parameters"}), *explicit])
            raise wrong("a topology and links exclude each other", got, "topology: NAME, or switches: and links:")
        if explicit and (self.switches is None or self.links is None):
            raise wrong(
                "switches and links belong together", " and ".join(explicit), "switches: [s1, …] and links: […]"
            )
        return self

    @property
    def is_explicit(self) -> bool:
        """Return whether the file lists the links."""
        return self.links is not None


class NodeSpec(Model):
    """One machine; without `ip` it gets the next free one, without `subnet` its agent leases any."""

    ip: Address | None = None
    """By default host number 101 of the underlay's range, or a later one."""
    subnet: Network | None = None
    ipv6_subnet: Network6 | None = None
    """For `subnet`, on a network with EnableIPv6."""
    reserved: bool = False
    """Whether the subnet's key in etcd is a reservation, which never expires."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """For `nodeSelector`, in addition to kubernetes.io/hostname, kubernetes.io/os and kubernetes.io/arch."""
    agent: AgentSpec | None = None
    cni: CniSpec | None = None

    @model_validator(mode="after")
    def _reserved_needs_a_subnet(self) -> "NodeSpec":
        if self.reserved and self.subnet is None:
            raise wrong("a reservation needs its subnet", "reserved: true", "subnet: NETWORK beside it")
        return self


def _nothing_for_null(value: object) -> object:
    return {} if value is None else value


NodeName = Annotated[str, AfterValidator(check_node_name)]


class ClusterDocument(Model):
    """The Cluster document as it is in the file; only `nodes` is required."""

    api_version: Literal["testbed/v1"] = "testbed/v1"
    kind: Literal["Cluster"] = "Cluster"
    metadata: Metadata = Field(default_factory=lambda: Metadata(name=DEFAULT_NAME))
    network: dict[str, Any] = Field(default_factory=lambda: dict(DEFAULT_NETWORK))
    """flannel's own network config."""
    underlay: UnderlaySpec = Field(default_factory=UnderlaySpec)
    nodes: Annotated[dict[NodeName, Annotated[NodeSpec, BeforeValidator(_nothing_for_null)]], Field(min_length=1)]
    """By name; or a list of names if nodes need no settings."""
    etcd: EtcdSpec = Field(default_factory=EtcdSpec)
    agent: AgentSpec = Field(default_factory=AgentSpec)
    cni: CniSpec | None = None
    images: dict[str, str] = Field(default_factory=dict)
    """Recipes for images: a pattern of references such as `"*/frontend:*"` → a recipe; `"*"`: for all without one. The
    recipe echo stands in for an image: it answers on the ports that the container declares."""
    dns: bool | None = None
    """Whether the lab has a DNS for Services and pods.

    None: yes, unless pods may have addresses in the range of Services.
    """
