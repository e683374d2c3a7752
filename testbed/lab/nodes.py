"""The nodes of a lab, by name; what is known of them is replaced as a whole, so that a reader sees one state."""

import threading
from collections.abc import Iterable, Iterator, Mapping

from testbed.lab.node import LabNode


class Nodes(Mapping[str, LabNode]):
    """Every node that the lab knows, in the order in which they came."""

    def __init__(self) -> None:
        self._nodes: dict[str, LabNode] = {}
        self._changing = threading.Lock()

    def __getitem__(self, name: str) -> LabNode:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def values(self) -> list[LabNode]:  # type: ignore[override]  # a list does not change while nodes come and go
        """Return the nodes as they are now."""
        return list(self._nodes.values())

    def add(self, nodes: Iterable[LabNode]) -> None:
        """Let these nodes be known."""
        with self._changing:
            self._nodes = {**self._nodes, **{node.name: node for node in nodes}}

    def forget(self, node: LabNode) -> None:
        """Let the node be unknown; its machine is about to go."""
        with self._changing:
            self._nodes = {name: other for name, other in self._nodes.items() if other is not node}
