"""Switches in a row with nodes on each, like Mininet's own `linear`, but with the testbed's names.

    s1 ── s2 ── s3
    │     │     │
    node1 node2 node3

`sudo mn --custom topologies/linear.py --topo linear,switches=3 --switch lxbr --controller none` builds the same
underlay without agents.
"""

from mininet.topo import Topo


class Linear(Topo):
    """A row of switches; nodes far apart have many cables and switches between them."""

    def build(self, switches: int = 2, hosts: int = 1) -> None:
        """Make the graph.

        switches: how many are in the row
        hosts: how many nodes are on each switch
        """
        if switches < 1 or hosts < 1:
            raise ValueError(f"switches and hosts start at 1 (got switches={switches}, hosts={hosts})")
        node = 0
        for number in range(1, switches + 1):
            switch = self.addSwitch(f"s{number}")
            for _ in range(hosts):
                node += 1
                self.addLink(self.addHost(f"node{node}"), switch)
            if number > 1:
                self.addLink(f"s{number - 1}", switch)


topos = {"linear": Linear}
