"""A data centre's fabric: every leaf switch has an uplink to every spine switch, and nodes connect to the leaves.

    spines=2, leaves=3, hosts=2:    spine1      spine2
                                    (each leaf to both)
                              leaf1      leaf2      leaf3
                           node1 node2 node3 node4 node5 node6

The uplinks are a loop. Data centres resolve it either by routing (each leaf a subnet, several paths used at once) or,
with all nodes in one subnet as here, by spanning tree. Spanning tree is used because it repairs itself: with static
routes a dead spine would cut off its leaves permanently, while here `link spine1 leaf2 down` costs some seconds and
traffic moves to spine2. The price is that only one spine carries traffic at a time. spine1 has the best priority, so it
is the root. The testbed brings the tree's cables up first and the spare ones afterwards, so there is nothing to wait
for at the start; and its bridges' forward delay is the kernel's smallest, 2 s.

`sudo mn --custom topologies/leaf_spine.py --topo leaf_spine --switch lxbr --controller none --wait` builds the same
underlay without agents; bridges of Mininet keep the kernel's forward delay of 15 s, hence a wait of about 30 s.
"""

from mininet.topo import Topo


class LeafSpine(Topo):
    """Every leaf switch linked to every spine switch; spanning tree keeps the spare uplinks back."""

    def build(self, spines: int = 2, leaves: int = 2, hosts: int = 2) -> None:
        """Make the graph.

        spines: how many spine switches
        leaves: how many leaf switches
        hosts: how many nodes are on each leaf
        """
        if spines < 1 or leaves < 1 or hosts < 1:
            got = f"spines={spines}, leaves={leaves}, hosts={hosts}"
            raise ValueError(f"spines, leaves and hosts start at 1 (got {got})")
        # Mininet derives a switch's datapath id from the digits of its name; spine1 and leaf1 would get the same.
        for spine in range(1, spines + 1):
            self.addSwitch(f"spine{spine}", stp=True, prio=spine, dpid=f"{spine:x}")
        node = 0
        for leaf in range(1, leaves + 1):
            number = spines + leaf
            switch = self.addSwitch(f"leaf{leaf}", stp=True, prio=number, dpid=f"{number:x}")
            for spine in range(1, spines + 1):
                self.addLink(f"spine{spine}", switch)
            for _ in range(hosts):
                node += 1
                self.addLink(self.addHost(f"node{node}"), switch)


topos = {"leaf_spine": LeafSpine}
