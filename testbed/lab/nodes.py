"""The nodes of a lab, by name; replaced as a whole, so that a reader sees one state."""

import threading
from collections.abc import Iterable, Iterator, Mapping

from testbed.lab.node import LabNode


class Nodes(Mapping[str, LabNode]):
    """Every node of the lab, in order of creation."""

    def __init__(self) -> None:
        self._nodes: dict[str, LabNode] = {}
        self._changing = threading.Lock()

    def __getitem__(self, name: str) -> LabNode:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    # Lists, which do not change while nodes come and go: Mapping's own views look each name up when they get there.
    # So does dict(nodes), which is why it is written dict(nodes.items()).
    def values(self) -> list[LabNode]:  # type: ignore[override]  # see above
        """Return the nodes as they are now."""
        return list(self._nodes.values())

    def items(self) -> list[tuple[str, LabNode]]:  # type: ignore[override]  # see above
        """Return names and nodes as they are now."""
        return list(self._nodes.items())

    def add(self, nodes: Iterable[LabNode]) -> None:
        """Register these nodes."""
        with self._changing:
            self._nodes = {**self._nodes, **{node.name: node for node in nodes}}

    def forget(self, node: LabNode) -> None:
        """Unregister the node; its machine is about to be removed."""
        with self._changing:
            self._nodes = {name: other for name, other in self._nodes.items() if other is not node}
