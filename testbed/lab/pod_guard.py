"""Rules of a node for packets from its pods, restored when another program changes them. nftables.

table bridge testbed-guard      per port of the pods' bridge: only the pod's MAC and address, in IP, in ARP and in
                                advertisements to neighbours; nothing with a VLAN tag
table inet testbed-guard        from the pods' bridge: nothing to the machines that run etcd, whatever the port;
                                queries to the cluster's DNS, which has no route to pods, leave with the node's address;
                                connections are tracked from the start, for policies that come later
"""

import threading
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from agent.kernel.journal import Journal
from agent.kernel.values import IPAddress
from testbed.cluster.dns import DNS_ADDRESS
from testbed.lab.kept_table import KeptTable, RulesWatch
from testbed.lab.ruleset import Ruleset

TABLE = "testbed-guard"
WHY_PORTS = "pods send only from their own addresses"
WHY_UNDERLAY = "pods' access to the underlay: never etcd, always the DNS"
WHY_REPAIR = "another program changed the rules for packets from pods"

# A VLAN tag hides the rest from the other rules; the receiving kernel removes one of VLAN 0 (0x8100: 802.1Q, 0x88a8:
# 802.1ad).
PORTS = f"""table bridge {TABLE} {{
 set ports {{ type ifname; }}
 set allowed {{ type ifname . ether_addr . ipv4_addr; }}
 chain from-pods {{
  type filter hook prerouting priority -300; policy accept;
  iifname @ports ether type {{ 0x8100, 0x88a8 }} counter drop comment "no VLAN tag"
  iifname @ports ether type ip iifname . ether saddr . ip saddr != @allowed counter drop comment "a pod's own address"
  iifname @ports ether type arp iifname . ether saddr . arp saddr ip != @allowed counter drop comment "a pod's own ARP"
 }}
}}
"""
ADVERTISED = "@th,64,128"
"""A neighbour advertisement's target address (RFC 4861 §4.4), which nft names only from 1.0.8 on."""
IPV6_PORTS = f"""table bridge {TABLE} {{
 set allowed6 {{ type ifname . ether_addr . ipv6_addr; }}
 set advertised6 {{ typeof iifname . {ADVERTISED}; }}
 chain from-pods {{
  iifname @ports ether type ip6 iifname . ether saddr . ip6 saddr != @allowed6 counter drop comment "its own IPv6"
  iifname @ports icmpv6 type nd-neighbor-advert iifname . {ADVERTISED} != @advertised6 \
   counter drop comment "its own advertisement"
 }}
}}
"""
"""In addition, on a dual-stack network."""
PORTS_RULES, IPV6_RULES = 3, 2
"""How many rules each adds to the chain."""


Sender = tuple[str, frozenset[IPAddress]]
"""MAC address and addresses of a pod."""


class PodGuard:
    """The rules of one node. Methods may be called from several threads."""

    def __init__(self, pid: int, journal: Journal, pods: str, servers: Collection[IPv4Address], *, dns: bool) -> None:
        """`pid` is a process in the node's namespaces, `servers` the machines that run etcd.

        `pods` is the interface that pods' packets come in by, or `!= NAME` for all but one.
        """
        self._journal = journal
        self._rules = RulesWatch(pid)
        self._turn = threading.Lock()
        self._senders: dict[str, Sender] = {}
        """By port."""
        self._has_ipv6 = False
        self._ports = self._kept(PORTS, {"from-pods": PORTS_RULES})
        self._underlay = self._kept(underlay(pods, dns=dns), {"from-pods": 2, **({"to-dns": 1} if dns else {})})
        self._servers = Ruleset(f"inet {TABLE}", sets={"servers": frozenset(map(str, servers))})

    def start(self) -> None:
        """Write the rules that do not depend on pods. Raises OSError."""
        with self._turn:
            self._write()

    def confine(self, port: str, mac: str, addresses: Collection[IPAddress]) -> None:
        """Let this port of the bridge send only from these addresses. Raises OSError."""
        with self._turn:
            if not self._has_ipv6 and any(address.version == 6 for address in addresses):
                self._has_ipv6 = True
                self._ports = self._kept(PORTS + IPV6_PORTS, {"from-pods": PORTS_RULES + IPV6_RULES})
            self._senders[port] = (mac, frozenset(addresses))
            self._write()

    def release(self, port: str) -> None:
        """Remove the rules for a port that is gone. Raises OSError."""
        with self._turn:
            if self._senders.pop(port, None) is not None:
                self._write()

    def repair(self) -> bool:
        """Restore what another program changed, write what was refused; return whether it restored anything.

        Raises OSError.
        """
        with self._turn:
            # Both are checked.
            restored = self._rules.moved() and any([one.repair(WHY_REPAIR) for one in (self._ports, self._underlay)])
            self._write()
            return restored

    def _write(self) -> None:
        for table, wanted, why in (
            (self._underlay, self._servers, WHY_UNDERLAY),
            (self._ports, wanted_ports(self._senders), WHY_PORTS),
        ):
            table.put(wanted, why, why)

    def _kept(self, skeleton: str, base_rules: Mapping[str, int]) -> KeptTable:
        return KeptTable(self._rules, self._journal, skeleton, base_rules)


# The content of the tables. Pure.


def underlay(pods: str, *, dns: bool) -> str:
    """Return the skeleton of the table of family inet."""
    to_dns = (
        " chain to-dns {\n  type nat hook postrouting priority srcnat - 2; policy accept;\n"
        f'  ip daddr {DNS_ADDRESS} masquerade comment "the DNS is on the underlay"\n }}\n'
    )
    return (
        f"table inet {TABLE} {{\n set servers {{ type ipv4_addr; }}\n chain from-pods {{\n"
        "  type filter hook forward priority -10; policy accept;\n"
        f'  iifname {pods} ip daddr @servers counter drop comment "pods do not reach etcd"\n'
        '  ct state new comment "known before a policy asks"\n }\n'
        f"{to_dns if dns else ''}}}\n"
    )


def wanted_ports(senders: Mapping[str, Sender]) -> Ruleset:
    """Return the wanted content of the table of family bridge."""
    sets: dict[str, set[str]] = {"ports": set(senders), "allowed": set()}
    for port, (mac, addresses) in senders.items():
        for address in addresses:
            if address.version == 4:
                sets["allowed"].add(f"{port} . {mac} . {address}")
            else:
                sets.setdefault("allowed6", set()).add(f"{port} . {mac} . {address}")
                sets.setdefault("advertised6", set()).add(f"{port} . {int(address):#034x}")
    return Ruleset(f"bridge {TABLE}", sets={name: frozenset(elements) for name, elements in sets.items()})
