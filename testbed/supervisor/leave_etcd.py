"""The last verb of a lab with an existing etcd cluster: `down` asks for it, and then ends the lab."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from testbed.control.questions import LEAVE_ETCD
from testbed.control.server import Request, Verb
from testbed.faults.lease_faults import THIEF
from testbed.lab.nodes import Nodes
from testbed.lab.registry import LabRegistry

ENDERS = 16
"""Agents ended at the same time."""


def leave_etcd_verb(nodes: Nodes, registry: LabRegistry) -> Verb[Sequence[str]]:
    """Return the verb: it removes the lab's keys, and returns them."""

    def leave(_request: Request) -> Sequence[str]:
        # They would write their keys again.
        with ThreadPoolExecutor(ENDERS, "end agent") as enders:
            list(enders.map(lambda node: node.agent.hold(0), list(nodes.values())))
        return registry.leave({THIEF, *(node.address for node in nodes.values())})

    return Verb(LEAVE_ETCD, leave)
