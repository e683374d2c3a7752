"""All nodes on one switch, like Mininet's own `single`, but with the testbed's names.

`sudo mn --custom topologies/single.py --topo single,3` builds the same underlay without agents.
"""

from mininet.topo import Topo


class SingleSwitch(Topo):
    """All nodes on one switch."""

    def build(self, nodes: int = 2) -> None:
        """Make the graph: hosts node1…nodeN on the switch s1.

        nodes: how many
        """
        if nodes < 1:
            raise ValueError(f"nodes start at 1 (got nodes={nodes})")
        switch = self.addSwitch("s1")
        for number in range(nodes):
            self.addLink(self.addHost(f"node{number + 1}"), switch)


topos = {"single": SingleSwitch}
