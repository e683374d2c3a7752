"""The packet filter rules of a flanneld, as its releases make them on a node. For tests that need what one left."""

from collections.abc import Mapping

from tests.netns.agents import run
from tests.pcap import REAL_FLANNELD

NETWORK, NETWORK6, SUBNET6 = "10.0.0.0/16", "fd00:a::/48", "fd00:a:0:7::/64"
COMMENT = '-m comment --comment "flanneld {}"'


def _chains(network: str, subnet: str, multicast: str) -> str:
    """Return what HEAD of August 2026 gives iptables-restore, pkg/trafficmngr/iptables."""
    masq, forward = COMMENT.format("masq"), COMMENT.format("forward")
    return f"""*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
-A FLANNEL-POSTRTG -s {subnet} -d {network} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} -d {subnet} {masq} -j RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {subnet} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} ! -d {multicast} {masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {forward} -j FLANNEL-FWD
-A FLANNEL-FWD -s {network} {forward} -j ACCEPT
-A FLANNEL-FWD -d {network} {forward} -j ACCEPT
COMMIT
"""


def _without_chains(subnet: str) -> str:
    """Return what releases before 0.20 put into the machine's own chains."""
    masq, forward = COMMENT.format("masq"), COMMENT.format("forward")
    return f"""*nat
-A POSTROUTING -s {NETWORK} -d {subnet} {masq} -j RETURN
-A POSTROUTING -s {NETWORK} ! -d 224.0.0.0/4 {masq} -j MASQUERADE --random-fully
-A POSTROUTING ! -s {NETWORK} -d {subnet} {masq} -j RETURN
COMMIT
*filter
-A FORWARD -s {NETWORK} {forward} -j ACCEPT
-A FORWARD -d {NETWORK} {forward} -j ACCEPT
COMMIT
"""


def _tables(subnet: str) -> str:
    """Return what HEAD has with EnableNFTables, pkg/trafficmngr/nftables."""
    tables = []
    for family, network, own, multicast in (
        ("ip", NETWORK, subnet, "224.0.0.0/4"),
        ("ip6", NETWORK6, SUBNET6, "ff00::/8"),
    ):
        tables.append(f"""table {family} flannel-ipv{4 if family == "ip" else 6} {{
  chain forward {{
    type filter hook forward priority filter;
    {family} saddr {network} accept
    {family} daddr {network} accept
  }}
  chain postrtg {{
    type nat hook postrouting priority srcnat;
    meta mark 0x4000 return
    {family} saddr {own} {family} daddr {network} return
    {family} saddr {network} {family} daddr {own} return
    {family} saddr != {own} {family} daddr {network} return
    {family} saddr {network} {family} daddr != {multicast} masquerade fully-random
    {family} saddr != {network} {family} daddr {network} masquerade fully-random
  }}
}}
""")
    return "".join(tables)


KINDS = ("recorded", "iptables", "iptables-legacy", "without-chains", "nftables")


def load(kind: str, netns: str, subnet: str) -> None:
    """Make the rules that a flanneld with that subnet had; `recorded` are those of a real 0.20.2 with 10.0.46.0/24."""
    programs: Mapping[str, tuple[str, str]] = {
        "iptables": ("iptables-nft", "ip6tables-nft"),
        "iptables-legacy": ("iptables-legacy", "ip6tables-legacy"),
        "without-chains": ("iptables-nft", "ip6tables-nft"),
    }
    inside = ("ip", "netns", "exec", netns)
    if kind == "recorded":
        run(*inside, "nft", "-f", str(REAL_FLANNELD / "vxlan-rules-node1.txt"))
    elif kind == "nftables":
        run(*inside, "nft", "-f", "-", stdin=_tables(subnet))
    else:
        ipv4, ipv6 = (f"{program}-restore" for program in programs[kind])
        text = _without_chains(subnet) if kind == "without-chains" else _chains(NETWORK, subnet, "224.0.0.0/4")
        run(*inside, ipv4, "--noflush", stdin=text)
        if kind != "without-chains":
            run(*inside, ipv6, "--noflush", stdin=_chains(NETWORK6, SUBNET6, "ff00::/8"))


VXLAN = (
    "ip link add flannel.1 address f2:ac:41:74:ac:32 mtu 1450 type vxlan"
    " id 1 local 192.168.8.227 dev eth0 dstport 8472 nolearning",
    "ip address add 10.0.46.0/32 dev flannel.1",
    "ip link set flannel.1 up",
    "mkdir -p /run/flannel",
    f"cp {REAL_FLANNELD / 'vxlan-subnet.env'} /run/flannel/subnet.env",
)
"""Commands that make what the recorded flanneld had on node1 with vxlan, beside rules and peers."""


def remaining(netns: str) -> list[str]:
    """Return every line of the machine's rules that is a flanneld's, without what its counters say."""
    inside = ("ip", "netns", "exec", netns)
    listings = [run(*inside, "nft", "--stateless", "list", "ruleset").stdout]
    for family in ("ip", "ip6"):
        for table in ("nat", "filter"):
            for program in (f"{family}tables-nft", f"{family}tables-legacy"):
                listings.append(run(*inside, program, "-t", table, "-S", check=False).stdout)
    return [line for text in listings for line in text.splitlines() if "flannel" in line.lower()]
