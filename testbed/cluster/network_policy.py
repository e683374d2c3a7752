"""Kubernetes' networking.k8s.io/v1 NetworkPolicy, complete."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from agent.kernel.values import IPNetwork
from testbed.cluster.label_selector import Selector
from testbed.cluster.manifest import Metadata, NamespacedObject
from testbed.cluster.manifest_model import Model, Port
from testbed.cluster.name_rules import check_port_or_name, wrong
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

Direction = Literal["Ingress", "Egress"]
PolicyProtocol = Literal["TCP", "UDP", "SCTP"]


def _check_network(text: str) -> str:
    try:
        # As in Kubernetes, bits after the prefix are ignored.
        return str(ip_network(text, strict=False))
    except ValueError:
        raise wrong("not a network", text, "one such as 10.0.0.0/16 or fd00:a::/64") from None


NetworkText = Annotated[str, AfterValidator(_check_network)]


class PolicyPart(Model):
    """A part of a policy: an empty selector is significant here, so a misspelt key without a value is a mistake."""

    empty_settings_say_nothing = False


class IPBlock(PolicyPart):
    """Addresses of a network, except those of others inside it."""

    cidr: NetworkText
    exceptions: Annotated[tuple[NetworkText, ...], Field(strict=False)] = Field(default=(), alias="except")

    @model_validator(mode="after")
    def _exceptions_lie_inside(self) -> "IPBlock":
        whole = ip_network(self.cidr)
        for text in self.exceptions:
            inner = ip_network(text)
            if inner.network_address not in whole or inner.prefixlen <= whole.prefixlen:
                raise wrong("an exception outside the block", text, f"a network inside {self.cidr}")
        return self

    @property
    def network(self) -> IPNetwork:
        """Return the block."""
        return ip_network(self.cidr)

    @property
    def excluded(self) -> tuple[IPNetwork, ...]:
        """Return the excluded networks."""
        return tuple(map(ip_network, self.exceptions))


class Peer(PolicyPart):
    """The other end: pods by their labels and their namespace's, or addresses."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    """None with a podSelector: the policy's own namespace."""
    ip_block: IPBlock | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Peer":
        selects = self.pod_selector is not None or self.namespace_selector is not None
        if selects and self.ip_block is not None:
            raise wrong("addresses and labels in one peer", "ipBlock beside a selector", "a peer for each of them")
        if not selects and self.ip_block is None:
            raise wrong("a peer that names none", "{}", "podSelector, namespaceSelector or ipBlock")
        return self


class PolicyPort(PolicyPart):
    """One port, a range of ports, or every port of a protocol."""

    protocol: PolicyProtocol = "TCP"
    port: Annotated[int | str, PlainValidator(check_port_or_name)] | None = None
    """A number, or the name of the receiving pod's port; None: every port."""
    end_port: Port | None = None

    @model_validator(mode="after")
    def _range_has_two_ends(self) -> "PolicyPort":
        if self.end_port is None:
            return self
        if not isinstance(self.port, int):
            got = "endPort without port" if self.port is None else f"endPort with port {self.port}"
            raise wrong("a range without a first number", got, "port: a number")
        if self.end_port < self.port:
            raise wrong(
                "a range whose end is below its start", f"{self.port} to {self.end_port}", "endPort from port on"
            )
        return self


Ports = Annotated[tuple[PolicyPort, ...], Field(strict=False)]
Peers = Annotated[tuple[Peer, ...], Field(strict=False)]


class IngressRule(PolicyPart):
    """Who may connect to which ports; without peers any source, without ports any port, by any protocol."""

    peers: Peers = Field(default=(), alias="from")
    ports: Ports = ()


class EgressRule(PolicyPart):
    """Where the pods may connect to; without peers anywhere, without ports to all, by any protocol."""

    peers: Peers = Field(default=(), alias="to")
    ports: Ports = ()


class NetworkPolicySpec(PolicyPart):
    """Which pods it isolates, in which directions, and what it allows nevertheless."""

    pod_selector: Selector = Field(default_factory=Selector)
    """Selects pods of the policy's own namespace."""
    policy_types: Annotated[tuple[Direction, ...], Field(strict=False, max_length=2)] = ()
    """By default: Ingress, and Egress if it has rules for it."""
    ingress: Annotated[tuple[IngressRule, ...], Field(strict=False)] = ()
    egress: Annotated[tuple[EgressRule, ...], Field(strict=False)] = ()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Return the isolated directions."""
        return self.policy_types or (("Ingress", "Egress") if self.egress else ("Ingress",))


class NetworkPolicy(NamespacedObject):
    """A networking.k8s.io/v1 NetworkPolicy."""

    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: NetworkPolicySpec

    def rules(self, direction: Direction) -> tuple[IngressRule | EgressRule, ...]:
        """Return the rules for a direction."""
        return self.spec.ingress if direction == "Ingress" else self.spec.egress

    def to_manifest(self) -> dict[str, Any]:
        """Return the policy as a manifest, without fields that have their default value."""
        manifest = super().to_manifest()
        spec = {"podSelector": {}, **manifest["spec"], "policyTypes": list(self.spec.directions)}
        return {**manifest, "spec": spec}


def check_network_policy(source: Source, policy: object) -> Iterator[Problem]:
    """Check for rules of a direction that the policy does not cover: Kubernetes ignores them."""
    assert isinstance(policy, NetworkPolicy)
    for direction, key in (("Ingress", "ingress"), ("Egress", "egress")):
        rules = policy.spec.ingress if direction == "Ingress" else policy.spec.egress
        if rules and direction not in policy.spec.directions and not source.is_doubtful(("spec", "policyTypes")):
            got = ", ".join(policy.spec.directions)
            source.warn(("spec", key), f"rules without an effect (got policyTypes {got}; want {direction} among them)")
    yield from ()
