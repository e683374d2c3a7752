"""How long plain Mininet takes for as many hosts: `python -m testbed.bench.plain_mininet HOSTS`, in own namespaces.

One host and one link for each of our nodes and pods, on Linux bridges; Mininet's own classes, nothing else: no address
plan, no etcd, no agent, no overlay, no containers. Prints the seconds. Leftovers vanish with its namespaces.
"""

import sys
import time
from typing import Any

HOSTS_PER_SWITCH = 500
"""A Linux bridge has 1,023 ports."""


def main() -> None:
    """Build, print the time, and exit."""
    from mininet.link import Link
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import Host, Switch
    from mininet.util import quietRun

    class Bridge(Switch):  # type: ignore[misc]  # Mininet ships no types
        """A Linux bridge, made the way Mininet makes things: by commands."""

        def start(self, _controllers: object) -> None:
            quietRun(f"ip link add {self.name} type bridge")
            for interface in self.intfList():
                if interface.name != "lo":
                    quietRun(f"ip link set {interface.name} master {self.name}")
            quietRun(f"ip link set {self.name} up")

    setLogLevel("error")
    # Its first object would otherwise change sysctls of the whole machine.
    Mininet.inited = True
    count = int(sys.argv[1])
    started = time.monotonic()
    net: Any = Mininet(topo=None, host=Host, switch=Bridge, link=Link, controller=None, ipBase="10.0.0.0/8")
    switches = [net.addSwitch(f"s{number + 1}", dpid="1") for number in range(-(-count // HOSTS_PER_SWITCH))]
    for number in range(count):
        host = net.addHost(f"h{number + 1}")
        net.addLink(host, switches[number // HOSTS_PER_SWITCH])
    net.start()
    print(f"{time.monotonic() - started:.3f}", flush=True)


if __name__ == "__main__":
    main()
