"""The exercises and their texts for students. Pure and light; the faults are in `breakage`."""

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.errors import InvalidInput

PREFIX = "exercise/"
FORMER_PREFIX = "broken/"
"""Names that give away the fault still start their exercise, but are not listed."""
CLUSTER = "nginx_tomcat"
"""The cluster of every exercise."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One broken lab. Texts contain the variant's {victim} and {other} node, and a {pod} and {peer} pod of each."""

    number: int
    level: int
    complaint: str
    """The complaint of a user without knowledge of networks."""
    faults: tuple[str, ...]
    """Faults from `breakage`, on the victim; after a slash, on the other node."""
    hints: tuple[str, str, str]
    """Where to look, which tool to use, and almost the answer."""
    former_name: str = ""

    @property
    def name(self) -> str:
        """Return the name, as `up` takes it."""
        return f"{PREFIX}{self.number}"

    @property
    def lab(self) -> str:
        """Return the lab's name if the user gives none."""
        return self.name.replace("/", "-")


EXERCISES: Mapping[str, Exercise] = {
    one.name: one
    for one in (
        Exercise(
            1,
            1,
            "{pod} stopped answering. Pods on {other} get nothing from it, although {victim} itself can still "
            "ping it. "
            "It broke when someone cleaned up inside the pod.",
            ("pod-route",),
            (
                "Packets reach the pod. Does a reply leave it? Compare `testbed trace {peer} {pod}` with a "
                "trace of a pod "
                "that works.",
                "Look at the pod's own network from `testbed shell`: `ip netns exec {pod} ip address`, then `ip "
                "route`.",
                "A pod answers neighbours without a gateway, and everyone else through one.",
            ),
            "route-deleted",
        ),
        Exercise(
            2,
            1,
            "Nothing passes between {victim} and {other} any more. Both agents report ready, and their configuration"
            " is unchanged.",
            ("drop",),
            (
                "Every packet between the nodes is a UDP datagram on the underlay. Which side loses it? "
                "`testbed trace {peer} {pod}` names the last place that saw it.",
                "The datagram arrives at the uplink of {victim}, and its agent never reads it. What is between the"
                " two?",
                "`testbed exec {victim} -- nft list ruleset`: counters that grow, in a table that no agent made.",
            ),
            "nft-drop",
        ),
        Exercise(
            3,
            1,
            "{pod} is unreachable from {other}, and {victim} cannot ping it either. The pod runs, and its "
            "settings are "
            "exactly as before.",
            ("neighbour",),
            (
                "Even the node beside the pod gets no reply, so the overlay is not to blame. `testbed capture "
                "{pod} icmp`: "
                "does the pod see the requests?",
                "An Ethernet frame needs the right address to be delivered. Compare `ip neighbour` on {victim} with "
                "`ip link` in the pod.",
                "One entry has a MAC address that no pod has. Delete it, and ARP does the rest.",
            ),
        ),
        Exercise(
            4,
            1,
            "Traffic between {victim} and {other} stopped a moment ago. A new monitoring tool was installed on "
            "{victim} today.",
            ("squatter",),
            (
                "`testbed status` shows one agent that is not ready. What happens to it?",
                "`testbed logs {victim}` ends with the reason why the agent cannot start.",
                "Two programs cannot have one UDP port. `testbed exec {victim} -- ss -ulnp` shows the other one.",
            ),
            "agent-killed",
        ),
        Exercise(
            5,
            2,
            "All pods on {victim} are cut off, and {victim} itself cannot reach them. "
            "Bringing the bridge up by hand was not enough.",
            ("bridge",),
            (
                "Two things are wrong on {victim}: a device is down, and what should bring it up does not. "
                "Begin with "
                "`testbed exec {victim} -- ip link`.",
                "A running agent repairs its bridge within seconds. Which state does `ps` show for it?",
                "State T is stopped by a signal. There is a signal that continues it.",
            ),
            "docker0-down",
        ),
        Exercise(
            6,
            2,
            "Pods on {other} that call {pod} get: Destination Net Unreachable. Everything I can check on {victim}"
            " looks fine.",
            ("etcd-blocked",),
            (
                "{other} does not know the subnet of {victim}. Where does it learn subnets from? `testbed get leases`.",
                "`testbed logs {victim}`: its agent cannot renew its lease. Why does it not reach etcd?",
                "`testbed exec {victim} -- ip route`: one route only drops packets.",
            ),
            "lease-revoked",
        ),
        Exercise(
            7,
            2,
            "Pings between the nodes work, and small pages load. Downloads of more than a few kilobytes hang forever.",
            ("mtu",),
            (
                "Only large packets are lost. Find the largest that passes: `testbed trace {peer} {pod} --size BYTES`.",
                "The trace of a lost one ends at a device of the underlay, which is neither a pod's nor a node's.",
                "Every device has an MTU, including a switch's ports: `ip link` in `testbed shell`.",
            ),
            "mtu-lowered",
        ),
        Exercise(
            8,
            2,
            "http://nginx/ is refused in every pod since the last rollout, and so is port 30080. "
            "The nginx pod runs, and its own address works.",
            ("service",),
            (
                "The name resolves and the pod works, so check what connects the two: `testbed describe service"
                " nginx`.",
                "A Service forwards to its endpoints. `testbed get endpoints nginx`: which are they?",
                "Compare selector and ports of the Service with labels and ports of the pod, and `testbed apply` a"
                " Service that matches it.",
            ),
        ),
        Exercise(
            9,
            2,
            "Names do not resolve in pods on {victim}; they time out. Addresses work everywhere, and names work "
            "on {other}.",
            ("dns",),
            (
                "Every pod asks the same DNS: `cat /etc/resolv.conf` in one. Only {victim} is affected, so follow a"
                " query through it.",
                "`testbed trace {pod} 10.96.0.10:53 --udp` ends on {victim}. What determines the packets' path there?",
                "`testbed exec {victim} -- ip route`: one route is for the DNS alone, and only drops packets.",
            ),
        ),
        Exercise(
            10,
            3,
            "Pods on {victim} cannot reach pods on {other}, nor the other way. I compared `ip route` on both "
            "nodes line by "
            "line: it is right.",
            ("policy-route",),
            (
                "Requests from {other} arrive. It is the direction out of {victim} that loses packets: "
                "`testbed trace {pod} {peer}`.",
                "`ip route` shows one table. A kernel has several, and a list of rules that decides which is used"
                " first.",
                "`testbed exec {victim} -- ip rule`, then `ip route show table` with the number in the odd rule.",
            ),
        ),
        Exercise(
            11,
            3,
            "Nothing passes between {victim} and {other}. We removed one cause last week; this time there may "
            "be more than one.",
            ("drop", "/mtu"),
            (
                "Repair what loses every packet first; `testbed check` then shows what is left.",
                "The first fault is on {victim}, between its uplink and its agent. The second shows only with "
                "full-size packets.",
                "A foreign nftables table on {victim}; after that, the MTU of the switch port that leads to {other}.",
            ),
        ),
        Exercise(
            12,
            3,
            "Since this morning {pod} and {peer} cannot reach each other. Restarting the agent of {victim} "
            "did not help, and even while it ran for a moment {peer} got no reply.",
            ("squatter", "/pod-route"),
            (
                "Begin with the agent that is not ready, then run `testbed check` again: another pair still fails.",
                "The log of {victim} names the first fault. The second is inside a pod on {other}.",
                "Free the UDP port on {victim}, then compare `ip route` in {peer} with that of a working pod.",
            ),
        ),
        Exercise(
            13,
            3,
            "No pod gets an answer from {pod} any more, wherever it runs. {victim} itself does, and {pod} reaches "
            "all others. The security team was here yesterday.",
            ("policy",),
            (
                "The requests get as far as {victim}. What does `testbed trace {peer} {pod}` say about the place where "
                "they end?",
                "`testbed policy {peer} {pod}` names what denies them; `testbed describe netpol NAME` shows whom it "
                "allows.",
                "Compare the labels that the rule asks for with those of pods (`testbed get pods --show-labels`): "
                "apply a policy that allows all pods, or delete it.",
            ),
        ),
        Exercise(
            14,
            3,
            "{peer} gets nothing from {pod}, and nothing from any other pod. One rule was found and repaired last "
            "time; now there may be two.",
            ("policy", "/egress-policy"),
            (
                "Policies isolate a pod for what it receives and for what it sends, and both ends have to agree. "
                "`testbed policy --matrix` shows all pairs.",
                "A row of the matrix is what a pod sends, a column what it receives. One row and one column stand out.",
                "`testbed get netpol`: one policy isolates {pod} for ingress, one {peer} for egress. "
                "Both have to go, or to allow what is missing.",
            ),
        ),
    )
}
"""By name, in order."""
BY_FORMER_NAME = {FORMER_PREFIX + one.former_name: one for one in EXERCISES.values() if one.former_name}


def exercise_of(cluster: str | None) -> Exercise | None:
    """Return the exercise of `up exercise/N`; None for any other cluster. Raises InvalidInput."""
    if cluster is None or cluster.endswith((".yaml", ".yml")):
        return None
    if not cluster.startswith((PREFIX, FORMER_PREFIX)):
        return None
    found = EXERCISES.get(cluster) or BY_FORMER_NAME.get(cluster.replace("_", "-"))
    if found is None:
        want = f"{PREFIX}1 to {PREFIX}{len(EXERCISES)}"
        raise InvalidInput(f"testbed up: no such exercise (got {cluster[:60]}; want {want}; list: testbed topologies)")
    return found
