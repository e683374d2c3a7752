"""All nodes on one switch, like Mininet's own `single`, but with the testbed's names.

`sudo mn --custom topologies/single.py --topo single,3` builds the same underlay without agents.
"""

from mininet.topo import Topo


class SingleSwitch(Topo):
    """Hosts node1…nodeN on the switch s1."""

    def build(self, nodes: int = 2) -> None:
        """Make the graph. `nodes`: how many hosts."""
        switch = self.addSwitch("s1")
        for number in range(nodes):
            self.addLink(self.addHost(f"node{number + 1}"), switch)


topos = {"single": SingleSwitch}
