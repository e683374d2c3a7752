"""Rules for packets from pods: only from their own addresses, and none to etcd. nftables on the pod's node.

    table bridge testbed-guard      per port of the pods' bridge: only the pod's MAC and address, in IP, in ARP and in
                                    advertisements to neighbours
    table ip testbed-guard          from the pods' bridge: nothing to the machines that run etcd, whatever the port

Each script may run twice. Elements are added before they are deleted, so that a missing one is not an error.
"""

import subprocess
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from agent.kernel.journal import Journal
from testbed.cluster.dns import DNS_ADDRESS
from testbed.processes.namespaces import in_network_of

TABLE = "testbed-guard"
NAMES_TABLE = "testbed-names"
LIMIT_S = 10.0
PORTS = f"""table bridge {TABLE} {{
 set ports {{ type ifname; }}
 set allowed {{ type ifname . ether_addr . ipv4_addr; }}
 chain from-pods {{ type filter hook prerouting priority -300; policy accept; }}
}}
flush chain bridge {TABLE} from-pods
table bridge {TABLE} {{
 chain from-pods {{
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
"""On a dual-stack network."""


def admit_script(port: str, mac: str, address: IPv4Address, ipv6: IPv6Address | None = None) -> str:
    """Return a script for nft that allows only these addresses from this port. Pure."""
    # The port last: from then on it is checked.
    elements = [*_elements(port, mac, address, ipv6), ("ports", port)]
    return _tables(ipv6) + "".join(f"add {_element(*element)}\n" for element in elements)


def forget_script(port: str, mac: str, address: IPv4Address, ipv6: IPv6Address | None = None) -> str:
    """Return a script for nft that removes a pod's port. Pure."""
    elements = [("ports", port), *_elements(port, mac, address, ipv6)]
    lines = [f"{verb} {_element(*element)}\n" for element in elements for verb in ("add", "delete")]
    return _tables(ipv6) + "".join(lines)


def servers_script(bridge: str, servers: Collection[IPv4Address]) -> str:
    """Return a script for nft that blocks these machines for the pods' bridge. Pure."""
    there = ", ".join(map(str, servers))
    return (
        f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n chain from-pods {{\n"
        "  type filter hook forward priority -10; policy accept;\n"
        f'  iifname {bridge} ip daddr {{ {there} }} counter drop comment "pods do not reach etcd"\n }}\n}}\n'
    )


def names_script() -> str:
    """Return a script for nft that masquerades pods' queries to the cluster's DNS, which has no route to pods. Pure."""
    return (
        f"table ip {NAMES_TABLE}\ndelete table ip {NAMES_TABLE}\ntable ip {NAMES_TABLE} {{\n chain leaving {{\n"
        "  type nat hook postrouting priority srcnat - 2; policy accept;\n"
        f'  ip daddr {DNS_ADDRESS} masquerade comment "the DNS is on the underlay"\n }}\n}}\n'
    )


def load(pid: int, journal: Journal, script: str, why: str) -> None:
    """Run a script in the network namespace of process `pid`. Raises OSError with nft's message."""
    command = ["nft", "-f", "-"]

    def run() -> None:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode:
            raise OSError(f"nft: {done.stderr.strip()}")

    in_network_of(pid, run)
    journal.record(command, why, script)


def _tables(ipv6: IPv6Address | None) -> str:
    return PORTS + (IPV6_PORTS if ipv6 is not None else "")


def _elements(port: str, mac: str, address: IPv4Address, ipv6: IPv6Address | None) -> list[tuple[str, str]]:
    """Return sets and their elements for one port."""
    found = [("allowed", f"{port} . {mac} . {address}")]
    if ipv6 is not None:
        found += [("allowed6", f"{port} . {mac} . {ipv6}"), ("advertised6", f"{port} . {int(ipv6):#034x}")]
    return found


def _element(name: str, value: str) -> str:
    return f"element bridge {TABLE} {name} {{ {value} }}"
