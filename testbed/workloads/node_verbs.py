"""What a running lab does for `node add|drain|uncordon|delete`."""

import threading
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from testbed.control.server import Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.workloads.node_changes import (
    NodeFailed,
    NodeRefused,
    add_node,
    delete_node,
    drain_node,
    undrain_node,
)

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab

DRAIN_LIMIT_S = 60.0
ACTIONS = ("add", "drain", "uncordon", "delete")


def node_verbs(lab: "Lab") -> Mapping[str, Verb]:
    """The verb, bound to this lab."""
    return {"node": Verb(NodeVerbs(lab).node)}


class NodeVerbs:
    """One change of the nodes at a time."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab
        self._turn = threading.Lock()

    def node(self, request: Request) -> object:
        """Add, drain, open again or delete a node; returns when it is done."""
        action, name = request.argument("action", str), request.argument("name", str)
        if action not in ACTIONS or not name:
            raise InvalidInput("node: not understood (want add, drain, uncordon or delete, and a name)")
        if not self._lab.settled:
            raise TestbedError("the lab is still starting")
        if action != "add" and name not in self._lab.nodes:
            raise TestbedError(f"no node named {name} (there are: {', '.join(self._lab.nodes)})")
        limit_s = request.argument("limit_s", float, DRAIN_LIMIT_S)
        with self._turn:
            try:
                if action == "add":
                    switch = request.argument("switch", str) or self._lab.cluster.wiring.switches[0]
                    subnet = request.argument("subnet", str)
                    asked = IPv4Network(subnet) if subnet else None
                    node = add_node(self._lab, name, request.argument("ip", str), switch, asked)
                    return {"name": name, "address": str(node.address), "subnet": str(node.subnet)}
                if action == "drain":
                    return {"name": name, "stay": drain_node(self._lab, name, limit_s)}
                if action == "delete":
                    return {"name": name, "lost": delete_node(self._lab, name, limit_s)}
                undrain_node(self._lab, name)
            except NodeRefused as refusal:
                raise InvalidInput(str(refusal)) from refusal
            except NodeFailed as failure:
                raise TestbedError(str(failure)) from failure
            return {"name": name}
