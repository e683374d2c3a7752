"""The packet filter that checks what the kernel unpacks: one nftables table per network, replaced as a whole.

The forwarder's checks of a peer's packet, as far as a rule can make them. The table counts what it drops by the
forwarder's reasons, and what passes; a table that replaces another begins with its numbers.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent.datapath.counters import Counters, DropReason
from agent.errors import AgentError, EnvironmentMissing
from agent.kernel.firewall import TABLE_PREFIX
from agent.kernel.journal import Journal
from agent.kernel.nftables import generation_if_known, list_objects, run_nft

REASONS = (DropReason.PEER, DropReason.SOURCE, DropReason.DESTINATION, DropReason.NEST)
COUNTERS = (*REASONS, "rx", "tx")
WHY = "peers send from their own subnet, to ours"


@dataclass(frozen=True, slots=True)
class FouCheck:
    """What packets of peers are checked against."""

    network: IPv4Network
    subnet: IPv4Network
    """This node's own subnet."""
    address: IPv4Address
    """Where the datagrams arrive."""
    port: int
    device: str
    """Where packets of strangers arrive."""
    peers: str
    """What the names of the devices of peers begin with."""

    @property
    def table(self) -> str:
        """Return the table's name."""
        return table_name(self.network)


def table_name(network: IPv4Network) -> str:
    """Return the name of a network's table."""
    return f"{TABLE_PREFIX}fou-{str(network).replace('/', '-')}"


def rules(check: FouCheck, counts: Mapping[str, tuple[int, int]]) -> str:
    """Return a script for nft that replaces the table; its counters begin with `counts` (packets, bytes). Pure."""
    table = f"table ip {check.table}"
    lines = [f"# packets of peers of {check.network} are checked", table, f"delete {table}", f"{table} {{"]
    for name in COUNTERS:
        packets, size = counts.get(name, (0, 0))
        lines.append(f"\tcounter {name} {{ packets {packets} bytes {size} }}")
    for chain, (hook, statements) in _chains(check).items():
        lines.append(f"\tchain {chain} {{")
        lines += [f"\t\t{hook}; policy accept;"] if hook else []
        lines += [f'\t\t{statement} comment "{comment}"' for statement, comment in statements]
        lines.append("\t}")
    return "\n".join([*lines, "}"]) + "\n"


def _chains(check: FouCheck) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return hook and (statement, comment) of each chain; the comments identify the rules."""
    subnet, port, peers = check.subnet, check.port, f'"{check.peers}*"'
    nested = f"udp sport {port} udp dport {port}"

    def drop(match: str, reason: DropReason, comment: str) -> tuple[str, str]:
        return f"{match} counter name {reason} drop", f"{reason}: {comment}"

    source = "fib saddr . iif oif missing"
    received = [
        drop(source, DropReason.SOURCE, "not from the subnet of the peer"),
        drop(f"ip daddr != {subnet}", DropReason.DESTINATION, f"not to {subnet}"),
        drop(f"ip daddr {subnet.broadcast_address}", DropReason.DESTINATION, f"to all of {subnet}"),
        drop(nested, DropReason.NEST, f"the overlay in itself, port {port}"),
        ("counter name rx", "received"),
    ]
    outer = f"ip daddr {check.address} udp dport {port} udp sport != {port}"
    return {
        "received": ("", received),
        "prerouting": (
            "type filter hook prerouting priority raw",
            [
                drop(outer, DropReason.PEER, f"to {check.address}, not from port {port}"),
                drop(f'iifname "{check.device}"', DropReason.PEER, f"a stranger, on {check.device}"),
                (f"iifname {peers} jump received", f"from {peers.strip(chr(34))}"),
            ],
        ),
        "postrouting": (
            "type filter hook postrouting priority raw",
            [
                drop(f"oifname {peers} {nested}", DropReason.NEST, f"the overlay in itself, sent to port {port}"),
                (f"oifname {peers} counter name tx", "sent"),
            ],
        ),
    }


def remove_rules(network: IPv4Network, journal: Journal) -> None:
    """Make sure that the network has no such table. Raises FirewallError; without nft there is none."""
    table = f"table ip {table_name(network)}"
    with suppress(EnvironmentMissing):
        if list_objects(*table.split()) is not None:
            script = f"{table}\ndelete {table}\n"
            run_nft(["-f", "-"], script)
            journal.record(["nft", "-f", "-"], "these rules are no longer wanted", script)


class FouRules:
    """The table in the caller's network namespace, through the program nft."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._whole: tuple[FouCheck, int | None] | None = None
        """The generation of the rules when the table was last found complete."""
        self._check: FouCheck | None = None
        self._last = Counters()

    def converge(self, check: FouCheck) -> None:
        """Restore the table unless all its rules are present. Raises FirewallError and EnvironmentMissing."""
        self._check = check
        now = generation_if_known()
        if now is not None and self._whole == (check, now):
            return
        wanted = {name: [comment for _, comment in statements] for name, (_, statements) in _chains(check).items()}
        if self._present(check) != wanted:
            script = rules(check, self._counts(check))
            run_nft(["-f", "-"], script)
            self._journal.record(["nft", "-f", "-"], WHY, script)
            # Another program may have changed them since, so the next call looks again.
            self._whole = None
        else:
            self._whole = (check, now)

    def restore(self) -> None:
        """Do it again with the same check; nothing before the first. Raises FirewallError and EnvironmentMissing."""
        if self._check is not None:
            self.converge(self._check)

    def counters(self) -> Counters:
        """Return what the table counted; the last known numbers while it cannot be read."""
        if self._check is None:
            return self._last
        try:
            counts = self._counts(self._check)
        except (AgentError, OSError):
            # OSError: nft cannot be started, as no process or no memory is free.
            return self._last
        if counts:
            (received, received_bytes), (sent, sent_bytes) = counts["rx"], counts["tx"]
            drops = {reason.value: counts[reason.value][0] for reason in REASONS}
            self._last = Counters(sent, sent_bytes, received, received_bytes, drops)
        return self._last

    def _counts(self, check: FouCheck) -> dict[str, tuple[int, int]]:
        """Return packets and bytes by counter; nothing without the table."""
        listing = list_objects("counters", "table", "ip", check.table) or []
        found = [item["counter"] for item in listing if "counter" in item]
        return {one["name"]: (one["packets"], one["bytes"]) for one in found if one["name"] in COUNTERS}

    def _present(self, check: FouCheck) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, comment in _listed(list_objects("table", "ip", check.table) or []):
            found.setdefault(name, []).extend([] if comment is None else [comment])
        return found


def _listed(listing: list[Mapping[str, Mapping[str, str]]]) -> Iterator[tuple[str, str | None]]:
    """Yield every chain, and chain and comment of every rule. A base chain without its hook is none."""
    for item in listing:
        if "chain" in item and (item["chain"]["name"] == "received" or "hook" in item["chain"]):
            yield item["chain"]["name"], None
        elif "rule" in item:
            yield item["rule"]["chain"], item["rule"].get("comment", "")
