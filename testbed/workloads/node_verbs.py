"""A running lab's implementation of `node add|drain|uncordon|delete`, and of kubectl's `cordon`."""

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

from testbed.cluster.cluster_document import AgentSpec
from testbed.control.answers.lab import NodeAnswer
from testbed.control.questions import NODE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.nodes import Nodes
from testbed.spelling import listed
from testbed.workloads.node_changes import NodeChanges

DRAIN_LIMIT_S = 60.0
ACTIONS = ("add", "agent", "cordon", "drain", "uncordon", "delete")


class NodeVerbs:
    """Makes one change of the nodes at a time."""

    def __init__(self, changes: NodeChanges, nodes: Nodes, settled: Callable[[], bool]) -> None:
        """`settled` returns whether the lab's start has ended."""
        self._changes = changes
        self._nodes = nodes
        self._settled = settled
        self._turn = threading.Lock()

    def verbs(self) -> Sequence[AnyVerb]:
        """Return the verb."""
        return (Verb(NODE, self.node),)

    def node(self, request: Request) -> NodeAnswer:
        """Make one change of a node, or report the agents; return when it is done."""
        action, name = request.argument("action", str), request.argument("name", str)
        if action not in ACTIONS or not name:
            raise InvalidInput("node: invalid request (want add, cordon, drain, uncordon or delete, and a name)")
        if not self._settled():
            raise TestbedError("the lab is still starting")
        limit_s = request.argument("limit_s", float, DRAIN_LIMIT_S)
        with self._turn:
            if action != "add" and name not in self._nodes:
                raise TestbedError(f"no node named {name} (there are: {listed(self._nodes, str(name))})")
            if action == "add":
                subnet = request.argument("subnet", str)
                asked = _network(subnet) if subnet else None
                node = self._changes.add(
                    name,
                    request.argument("ip", str),
                    request.argument("switch", str),
                    asked,
                    request.argument("labels", dict) or {},
                )
                return {"name": name, "address": str(node.address), "subnet": str(node.subnet)}
            if action == "agent":
                # From `up` alone, which has checked the file that it is in. Without one: which run now.
                if (agent := request.argument("agent", str)) is not None:
                    self._changes.change_agent(name, AgentSpec.model_validate_json(agent), limit_s)
                return {"name": name, "agents": self._changes.agents()}
            if action == "drain":
                return {"name": name, "stay": self._changes.drain(name, limit_s)}
            if action == "delete":
                return {"name": name, "lost": self._changes.delete(name, limit_s)}
            if action == "cordon":
                self._changes.cordon(name)
            else:
                self._changes.uncordon(name)
            return {"name": name}


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidInput(f"node add: not a subnet (got {text}; want one such as 10.0.46.0/24)") from error
