"""Jumps of one agent's clock: the last active one counts, and the clock is real once none is active."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.faults import node_faults
from testbed.faults.catalogue import parse
from testbed.faults.ledger import Injected
from testbed.faults.node_faults import CLOCK_FILE, NodeFaults
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes


class Node:
    """As much of a LabNode as a jump needs."""

    def __init__(self, run: Path) -> None:
        self.name, self.run, self.expected = "node1", run, True
        self.environment: dict[str, str] = {}
        self.restarts: list[bool] = []
        """For each restart of the agent: whether its clock was a faked one."""
        self.agent = SimpleNamespace(restart=lambda: self.restarts.append(bool(self.environment)))

    @property
    def offset(self) -> str:
        return (self.run / Path(CLOCK_FILE).name).read_text().strip()


def undo(done: Injected) -> str:
    assert done.undo is not None
    return done.undo()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_active_jump_counts_in_whichever_order_they_are_healed(
    order: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_faults, "faked_clock", lambda _: {"LD_PRELOAD": "libfaketime"})
    nodes, node, unused = Nodes(), Node(tmp_path), cast(Any, None)
    nodes.add([cast(LabNode, node)])
    faults = NodeFaults(nodes, unused, unused, unused, unused, unused)
    jumps = [faults.jump_clock(parse(["clock", "jump", "node1", by])) for by in ("1h", "2h")]
    assert (node.offset, node.restarts) == ("+7200", [True])
    undo(jumps[order[0]])
    assert (node.offset, node.restarts) == ("+7200" if order[0] == 0 else "+3600", [True])
    undo(jumps[order[1]])
    assert (node.environment, node.restarts) == ({}, [True, False])
