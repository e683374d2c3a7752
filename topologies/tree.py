"""A tree of switches with the nodes as its leaves, like Mininet's own `tree`, but with the testbed's names.

    depth=2, fanout=2:          s1
                           s2        s3
                       node1 node2 node3 node4

`sudo mn --custom topologies/tree.py --topo tree,depth=2,fanout=3 --switch lxbr --controller none` builds the same
underlay without agents.
"""

from mininet.topo import Topo


class Tree(Topo):
    """A tree of switches; its leaves are fanout**depth nodes."""

    def build(self, depth: int = 2, fanout: int = 2) -> None:
        """Make the graph, level by level from the root s1.

        depth: how many levels of switches
        fanout: how many children each switch has
        """
        if depth < 1 or fanout < 1:
            raise ValueError(f"depth and fanout start at 1 (got depth={depth}, fanout={fanout})")
        level = [self.addSwitch("s1")]
        switches = 1
        for _ in range(depth - 1):
            children = []
            for parent in level:
                for _ in range(fanout):
                    switches += 1
                    child = self.addSwitch(f"s{switches}")
                    self.addLink(parent, child)
                    children.append(child)
            level = children
        node = 0
        for parent in level:
            for _ in range(fanout):
                node += 1
                self.addLink(self.addHost(f"node{node}"), parent)


topos = {"tree": Tree}
