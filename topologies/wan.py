"""Sites with an underlay subnet each, and one router between them: nodes of different sites are not neighbours.

    sites=2, hosts=2:   node1 ┐                     ┌ node3
                              s1 ── r1 (router) ── s2
                        node2 ┘                     └ node4

A host with the option `router=True` is not a cluster node but forwards between its links; Mininet itself does not
know this option. Addresses, routes and gateways given here are for plain Mininet only; the testbed plans its own from
the underlay's cidr: a part of it for each site.

`sudo mn --custom topologies/wan.py --topo wan --switch lxbr --controller none` builds the same underlay without agents;
there the router forwards after `r1 sysctl -w net.ipv4.ip_forward=1`.
"""

from mininet.topo import Topo

MOST_SITES = 200  # 192.168.8.0/24, 192.168.9.0/24 … for plain Mininet


class Wan(Topo):
    """Sites in different underlay subnets behind one router."""

    def build(self, sites: int = 2, hosts: int = 2) -> None:
        """Make the graph.

        sites: how many subnets, each with a switch
        hosts: how many nodes are connected to each site's switch
        """
        if not 1 <= sites <= MOST_SITES or not 1 <= hosts <= 150:
            raise ValueError(f"sites go from 1 to {MOST_SITES}, hosts from 1 to 150 (got sites={sites}, hosts={hosts})")
        router = self.addHost("r1", router=True, ip="192.168.8.1/24")
        node = 0
        for site in range(1, sites + 1):
            subnet = f"192.168.{7 + site}"
            switch = self.addSwitch(f"s{site}")
            self.addLink(router, switch, params1={"ip": f"{subnet}.1/24"})
            for number in range(hosts):
                node += 1
                name = self.addHost(f"node{node}", ip=f"{subnet}.{101 + number}/24", defaultRoute=f"via {subnet}.1")
                self.addLink(name, switch)


topos = {"wan": Wan}
