"""A router's answer to each packet without a route: "net unreachable".

The kernel's own answer is limited to one per second, and after a few in a row stops for a while: a client of an outside
address then waits as if the packet were lost. There are two limits. One is the namespace's (`net.ipv4.icmp_ratemask`);
the other (`net.ipv4.route.error_cost`) belongs to the whole machine, which a lab does not touch, and applies to routing
errors. So nftables answers first. IPv6 has only the first limit.
"""

from agent.kernel.kernel import Kernel
from testbed.processes.namespaces import in_network_of
from testbed.processes.short_commands import output_of

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
LOAD = ["nft", "-f", "-"]
NO_TYPE = "127"
"""No ICMPv6 message has this type; the list of limited types must not be empty for sysctl(8)."""


def answer_each_packet(kernel: Kernel, pid: int, *, ipv6: bool) -> None:
    """Let the router `pid` report every packet that it cannot forward. Raises OSError."""
    kernel.sysctl("net.ipv4.icmp_ratemask", "0", "a router of the lab reports every packet that it cannot forward")
    if ipv6:
        kernel.sysctl("net.ipv6.icmp.ratemask", NO_TYPE, "the same for IPv6", required=False)
    in_network_of(pid, lambda: output_of(LOAD, SCRIPT))
    kernel.journal.record(LOAD, "the kernel's own answer to packets without a route is limited to one a second", SCRIPT)
