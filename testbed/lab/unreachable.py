"""A router's answer to packets that it has no route for: «net unreachable», to each of them.

The kernel's own answer comes once a second at most, and after a few in a row not at all for a while: a client of an
address outside then waits as if the packet were lost. Two limits cause that. One is the namespace's
(`net.ipv4.icmp_ratemask`); the other (`net.ipv4.route.error_cost`) is the whole machine's, which a lab does not touch,
and holds for what routing refuses. So nftables answers before that. IPv6 has only the first.
"""

from agent.kernel.kernel import Kernel
from testbed.pods.port_guard import load

TABLE = "testbed-outside"
SCRIPT = f"""table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
 chain arriving {{
  type filter hook prerouting priority filter; policy accept;
  fib daddr type unicast fib daddr oif missing counter reject with icmp net-unreachable comment "no route"
 }}
}}
"""
NO_TYPE = "127"
"""No ICMPv6 message has this type; the list of limited types must not be empty for sysctl(8)."""


def answer_each_packet(kernel: Kernel, pid: int, *, ipv6: bool) -> None:
    """Let the router `pid` report every packet that it cannot forward. Raises OSError."""
    kernel.sysctl("net.ipv4.icmp_ratemask", "0", "a router of the lab reports every packet that it cannot forward")
    if ipv6:
        kernel.sysctl("net.ipv6.icmp.ratemask", NO_TYPE, "the same for IPv6", required=False)
    load(pid, kernel.journal, SCRIPT, "the kernel's own answer to packets without a route is limited to one a second")
