"""Which exercises there are, and what the student is told. Pure and light; what is broken stands in `breakage`."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.errors import InvalidInput

PREFIX = "broken/"
CLUSTER = "nginx_tomcat"
"""What every exercise is made of."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One broken lab."""

    name: str
    symptom: str
    """What somebody reports who knows nothing of networks."""


EXERCISES: Mapping[str, Exercise] = {
    one.name: one
    for one in (
        Exercise("agent-killed", "Since a moment ago nothing passes between node1 and node2."),
        Exercise(
            "route-deleted",
            "tomcat answers nobody on node1, and yet its node does. It was well until somebody tidied up in the pod.",
        ),
        Exercise("lease-revoked", "Pods of node1 that ask tomcat are told: Destination Net Unreachable."),
        Exercise("docker0-down", "Nobody reaches tomcat, not even its own node."),
        Exercise("nft-drop", "Between node1 and node2 every packet is lost. The agents say that they are well."),
        Exercise("mtu-lowered", "Pings pass between the nodes, small pages too. Large downloads hang."),
    )
}


def exercise_of(cluster: str | None) -> Exercise | None:
    """The exercise that `up broken/NAME` means; None for every other cluster. Raises InvalidInput."""
    if cluster is None or not cluster.startswith(PREFIX) or cluster.endswith((".yaml", ".yml")):
        return None
    name = cluster.removeprefix(PREFIX).replace("_", "-")
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, n=1)
        hint = f' - did you mean "{PREFIX}{near[0]}"?' if near else ""
        want = ", ".join(PREFIX + one for one in EXERCISES)
        raise InvalidInput(f"testbed up: no such exercise (got {cluster[:60]}; want {want}){hint}")
    return EXERCISES[name]
