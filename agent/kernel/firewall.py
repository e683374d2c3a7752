"""Masquerade and forward rules: one nftables table per network, replaced as a whole in one transaction.

The masquerade chain has exactly the effect of flannel's: between pods, addresses are kept; other traffic from a pod, or
to a pod from outside, gets the node's address.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from agent.kernel.journal import Journal
from agent.kernel.nftables import generation_if_known, list_objects, run_nft
from agent.kernel.values import FAMILY_WORDS, Flow, IPAddress, IPNetwork

TABLE_PREFIX = "overlay-agent-"
KUBE_PROXY_MARK = "0x4000"
"""kube-proxy masquerades packets with this mark; doing it twice would change the port that it chose."""
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
FIRST_PORT, LAST_PORT = 1024, 65535
"""Source port range for masquerading."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one network's table must do."""

    network: IPNetwork
    subnet: IPNetwork
    """This node's own subnet."""
    masquerade: bool
    random_fully: bool = True
    """Choose random source ports, so that packets of two nodes behind one NAT do not collide."""
    forward: bool = True
    """Accept the network's packets for forwarding in this table; for other chains see `forward_rules`."""
    overlay_port: int | None = None
    """UDP port of the overlay itself, to which pods may send nothing; None: the overlay has none."""
    bridge: str | None = None
    """The pods' bridge, if known."""


@dataclass(frozen=True, slots=True)
class _Chain:
    name: str
    hook: str
    rules: tuple[tuple[str, str], ...]
    """(nft's text, reason); the reason is the rule's comment in the kernel, which identifies it."""


def table_name(network: IPNetwork) -> str:
    """Return the name of a network's table."""
    return TABLE_PREFIX + str(network).replace("/", "-").replace(":", "_")


def _table(network: IPNetwork) -> str:
    """Return family and name, as nft expects them."""
    return f"{FAMILY_WORDS[network.version]} {table_name(network)}"


def rules(policy: Policy) -> str:
    """Return a script for `nft -f -` that replaces the network's table by one with this `policy`. Pure."""
    table = f"table {_table(policy.network)}"
    # Adding an existing table is fine, deleting a missing one is an error: hence add, delete, add.
    lines = [f"# masquerade and forward rules for {policy.network}, replaced as a whole", table, f"delete {table}"]
    chains = list(_chains(policy))
    if not chains:
        return "\n".join(lines) + "\n"
    lines.append(f"{table} {{")
    for chain in chains:
        lines += [f"\tchain {chain.name} {{", f"\t\t{chain.hook}; policy accept;"]
        lines += [f'\t\t{rule} comment "{comment}"' for rule, comment in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}"]) + "\n"


def _chains(policy: Policy) -> Iterator[_Chain]:
    network, subnet, ip = policy.network, policy.subnet, FAMILY_WORDS[policy.network.version]
    if policy.overlay_port is not None:
        forged = f"{ip} daddr != {network} udp dport {policy.overlay_port} counter drop"
        devices = [(f"iifname {policy.bridge}", f"from {policy.bridge}")] if policy.bridge is not None else []
        # A pod's datagram would get this node's address, which peers trust. By address too: pods may not be on the
        # bridge.
        sources = [*devices, (f"{ip} saddr {subnet}", f"from {subnet}")]
        yield _Chain(
            "prerouting",
            "type filter hook prerouting priority mangle",
            tuple((f"{match} {forged}", f"pods forge no packets of the overlay: {where}") for match, where in sources),
        )
    if policy.masquerade:
        verb, how = ("masquerade fully-random", ", random port") if policy.random_fully else ("masquerade", "")
        to_outside = f"{ip} saddr {network} {ip} daddr != {MULTICAST[network.version]}"
        from_outside = f"{ip} saddr != {network} {ip} daddr {network}"
        yield _Chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            (
                (f"meta mark & {KUBE_PROXY_MARK} == {KUBE_PROXY_MARK} return", "kube-proxy masquerades this itself"),
                (f"{ip} saddr {network} {ip} daddr {network} return", f"pod to pod in {network}: addresses stay"),
                *_spare_overlay_port(policy, to_outside, f"pod of {network} to outside"),
                (
                    f"{to_outside} {verb}",
                    f"pod of {network} to outside: the node's address{how}",
                ),
                (
                    f"{ip} saddr != {network} {ip} daddr {subnet} return",
                    f"outside to a pod of this node, {subnet}: addresses stay",
                ),
                *_spare_overlay_port(policy, from_outside, f"outside to {network} on other nodes"),
                (
                    f"{from_outside} {verb}",
                    f"outside to {network} on other nodes: replies return here{how}",
                ),
            ),
        )
    if policy.forward:
        yield _Chain(
            "forward",
            "type filter hook forward priority filter",
            (
                (f"{ip} saddr {network} accept", f"from pods of {network}"),
                (f"{ip} daddr {network} accept", f"to pods of {network}"),
            ),
        )


def escapes(policy: Policy, flow: Flow, own: Collection[IPAddress]) -> bool:
    """Report whether a flow is older than the rules and keeps its source although the policy masquerades it. Pure.

    `own` are the node's addresses: traffic to the node itself does not leave it.
    """
    source, destination = flow.source, flow.reply_source
    if not policy.masquerade or flow.reply_destination != source or destination in own or destination.is_multicast:
        return False
    if source in policy.network:
        return destination not in policy.network
    return destination in policy.network and destination not in policy.subnet


def _spare_overlay_port(policy: Policy, match: str, who: str) -> Iterator[tuple[str, str]]:
    """Masquerade UDP without the overlay's port, which peers trust: no pod's datagram may leave from it.

    The larger part of the port range is enough.
    """
    port = policy.overlay_port
    if port is not None:
        others = f"{port + 1}-{LAST_PORT}" if port - FIRST_PORT < LAST_PORT - port else f"{FIRST_PORT}-{port - 1}"
        how = " fully-random" if policy.random_fully else ""
        yield (
            f"{match} meta l4proto udp masquerade to :{others}{how}",
            f"{who}, UDP: the node's address, but not port {port}",
        )


class Firewall:
    """The packet filter of the caller's network namespace, through the program nft."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._whole: dict[Policy, int | None] = {}
        """The generation of the rules when a policy's table was last found complete."""

    def converge(self, policy: Policy) -> bool:
        """Restore the table unless all its rules are present; return whether it had to. Raises as `apply` does."""
        now = generation_if_known()
        if now is not None and self._whole.get(policy) == now:
            # No rule of this namespace has changed since the table was found complete; listing it costs a process.
            return False
        if self.present(policy):
            self._whole[policy] = now
            return False
        self.apply(policy)
        return True

    def apply(self, policy: Policy) -> None:
        """Replace the network's table, atomically. Raises FirewallError and EnvironmentMissing."""
        self._load(rules(policy), "packets of pods leave with the right source address and are forwarded")

    def present(self, policy: Policy) -> bool:
        """Report whether the kernel has exactly the policy's chains and rules, in order. Raises EnvironmentMissing."""
        wanted = {chain.name: [comment for _, comment in chain.rules] for chain in _chains(policy)}
        return self._read(_table(policy.network)) == (wanted or None)

    def remove(self, network: IPNetwork) -> None:
        """Make sure that the network's table is gone. Raises FirewallError and EnvironmentMissing."""
        self._remove(_table(network))

    def remove_all(self) -> None:
        """Remove the tables of every network. Raises FirewallError and EnvironmentMissing."""
        for family in FAMILY_WORDS.values():
            listing = list_objects("tables", family) or []
            for name in [item["table"]["name"] for item in listing if "table" in item]:
                if name.startswith(TABLE_PREFIX):
                    self._remove(f"{family} {name}")

    def _read(self, table: str) -> dict[str, list[str]] | None:
        """Return comments of all rules by chain, in order; None if the table does not exist."""
        listing = list_objects("table", *table.split())
        if listing is None:
            return None
        found: dict[str, list[str]] = {}
        for item in listing:
            # No packet reaches a chain without a hook.
            if "chain" in item and "hook" in item["chain"]:
                found.setdefault(item["chain"]["name"], [])
            elif "rule" in item:
                found.setdefault(item["rule"]["chain"], []).append(item["rule"].get("comment", ""))
        return found

    def _remove(self, table: str) -> None:
        if self._read(table) is not None:
            self._load(f"table {table}\ndelete table {table}\n", "these rules are no longer wanted")

    def _load(self, script: str, why: str) -> None:
        run_nft(["-f", "-"], script)
        self._journal.record(["nft", "-f", "-"], why, script)
