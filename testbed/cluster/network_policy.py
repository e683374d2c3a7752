"""Kubernetes' networking.k8s.io/v1 NetworkPolicy, whole."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from agent.kernel.values import IPNetwork
from testbed.cluster.label_selector import Selector
from testbed.cluster.manifest import Metadata
from testbed.cluster.manifest_model import Model, Port
from testbed.cluster.name_rules import check_port_or_name, wrong
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

Direction = Literal["Ingress", "Egress"]
PolicyProtocol = Literal["TCP", "UDP", "SCTP"]


def _check_network(text: str) -> str:
    try:
        # As in Kubernetes, bits behind the prefix say nothing.
        return str(ip_network(text, strict=False))
    except ValueError:
        raise wrong("not a network", text, "one such as 10.0.0.0/16 or fd00:a::/64") from None


NetworkText = Annotated[str, AfterValidator(_check_network)]


class PolicyPart(Model):
    """A part of a policy: here an empty selector says much, so a misspelt key is a mistake even without a value."""

    empty_settings_say_nothing = False


class IPBlock(PolicyPart):
    """Addresses of a network, but for those of others inside it."""

    cidr: NetworkText
    exceptions: Annotated[tuple[NetworkText, ...], Field(strict=False)] = Field(default=(), alias="except")

    @model_validator(mode="after")
    def _exceptions_lie_inside(self) -> "IPBlock":
        whole = ip_network(self.cidr)
        for text in self.exceptions:
            inner = ip_network(text)
            inside = inner.version == whole.version and inner.subnet_of(whole)  # type: ignore[arg-type] # equal versions
            if not inside or inner == whole:
                raise wrong("an exception that is no part of the block", text, f"a network inside {self.cidr}")
        return self

    @property
    def network(self) -> IPNetwork:
        """The block."""
        return ip_network(self.cidr)

    @property
    def excluded(self) -> tuple[IPNetwork, ...]:
        """What of it does not count."""
        return tuple(map(ip_network, self.exceptions))


class Peer(PolicyPart):
    """Those at the other end: pods by their labels and their namespace's, or addresses."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    """None beside a podSelector: the policy's own namespace."""
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
    """One port, several in a row, or every one of a protocol."""

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
            raise wrong("a range without a number to begin with", got, "port: a number")
        if self.end_port < self.port:
            raise wrong("a range that ends before it begins", f"{self.port} to {self.end_port}", "endPort from port on")
        return self


Ports = Annotated[tuple[PolicyPort, ...], Field(strict=False)]
Peers = Annotated[tuple[Peer, ...], Field(strict=False)]


class IngressRule(PolicyPart):
    """Who may connect to which ports; without peers everyone, without ports to all, by any protocol."""

    peers: Peers = Field(default=(), alias="from")
    ports: Ports = ()


class EgressRule(PolicyPart):
    """Where the pods may connect to; without peers anywhere, without ports to all, by any protocol."""

    peers: Peers = Field(default=(), alias="to")
    ports: Ports = ()


class NetworkPolicySpec(PolicyPart):
    """Which pods it isolates, in which directions, and what it lets through all the same."""

    pod_selector: Selector = Field(default_factory=Selector)
    """Of the policy's own namespace."""
    policy_types: Annotated[tuple[Direction, ...], Field(strict=False, max_length=2)] = ()
    """Left out: Ingress, and Egress where there are rules for it."""
    ingress: Annotated[tuple[IngressRule, ...], Field(strict=False)] = ()
    egress: Annotated[tuple[EgressRule, ...], Field(strict=False)] = ()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Those in which it isolates."""
        return self.policy_types or (("Ingress", "Egress") if self.egress else ("Ingress",))


class NetworkPolicy(Model):
    """A networking.k8s.io/v1 NetworkPolicy."""

    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: NetworkPolicySpec

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def key(self) -> ObjectKey:
        """`metadata.namespace` and `metadata.name`."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    def rules(self, direction: Direction) -> tuple[IngressRule | EgressRule, ...]:
        """What it lets through in a direction."""
        return self.spec.ingress if direction == "Ingress" else self.spec.egress

    def to_manifest(self) -> dict[str, Any]:
        """The policy as a manifest again, without fields that have their default value."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        spec = {"podSelector": {}, **manifest["spec"], "policyTypes": list(self.spec.directions)}
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest, "spec": spec}


def check_network_policy(source: Source, policy: object) -> Iterator[Problem]:
    """Check for rules of a direction that the policy is not about: Kubernetes ignores them."""
    assert isinstance(policy, NetworkPolicy)
    for direction, key in (("Ingress", "ingress"), ("Egress", "egress")):
        rules = policy.spec.ingress if direction == "Ingress" else policy.spec.egress
        if rules and direction not in policy.spec.directions and not source.is_doubtful(("spec", "policyTypes")):
            got = ", ".join(policy.spec.directions)
            source.warn(("spec", key), f"rules that do nothing (got policyTypes {got}; want {direction} among them)")
    yield from ()
