"""The lab as a whole: status, pings, events, changes of what runs in it, kernel changes."""

from typing import Any, Literal, NotRequired, TypedDict

from testbed.control.answers.policy import ReachChange

Description = dict[str, Any]
"""Headings and values, for people: `describe -o json`. Headings may change."""


class AgentStatus(TypedDict):
    """A node's agent."""

    state: str
    """`ready`, `not ready`, `fenced`, `starting`, `backoff`, `by hand`."""
    pid: int | None
    """In the lab; null when it does not run."""
    restarts: int


class PeerCount(TypedDict):
    """How many other nodes an agent knows."""

    known: int
    """Entries of its forwarding table."""
    expected: int


class NodeStatus(TypedDict):
    """One node."""

    name: str
    address: str
    """On the underlay."""
    subnet: str | None
    """Null without a lease."""
    drained: bool
    """Whether it accepts no new pods (`node drain`)."""
    cordoned: NotRequired[bool]
    """True after kubectl's `cordon` alone: its pods stay."""
    backend: str
    device: str | None
    """Of the overlay; null if there is none."""
    datapath: str | None
    """`native`, `python`, `kernel`, `none`; `other` for a foreign agent; null while it does not answer."""
    agent: AgentStatus
    peers: PeerCount
    warnings: list[str]
    """Problems that do not affect operation yet (another network config in etcd, a certificate that expires soon,
    another node with its address), from the agent's /state.
    """
    ipv6_address: NotRequired[str]
    """On a dual-stack network."""
    ipv6_subnet: NotRequired[str | None]
    """On a dual-stack network; null without a lease."""


class PodLine(TypedDict):
    """One pod."""

    name: str
    """`NAMESPACE/NAME` outside the default namespace, like all names of objects in these answers."""
    node: str
    address: str | None
    """Null if it never had one."""
    state: str
    """kubectl's word: `Running`, `CrashLoopBackOff`, …"""
    ready: bool
    restarts: int
    """Restarts of all its containers."""
    ipv6_address: NotRequired[str]
    """On a dual-stack network."""


class ServicePortLine(TypedDict):
    """One port of a Service."""

    port: int
    protocol: Literal["TCP", "UDP"]
    node_port: int | None


class ServiceLine(TypedDict):
    """One Service."""

    name: str
    """`NAMESPACE/NAME` outside the default namespace."""
    type: str
    cluster_ip: str | None
    """Null for a headless one."""
    ports: list[ServicePortLine]
    endpoints: int
    """Ready pods."""


class DnsStatus(TypedDict):
    """The cluster's DNS."""

    address: str
    domain: str
    machine: str
    """The machine that it runs on."""
    healthy: bool
    """Whether it answers with all names."""
    pid: int | None
    """In the lab."""
    restarts: int
    records: int
    """How many."""
    serial: int
    """Grows with each change."""


class EtcdMemberStatus(TypedDict):
    """One member of etcd."""

    name: str
    endpoint: str
    healthy: bool
    cluster: NotRequired[list[str]]
    """Endpoints of an existing cluster, to which this machine is the relay."""
    prefix: NotRequired[str]
    """What the lab's keys in that cluster begin with."""


class MachineStatus(TypedDict):
    """One machine of the underlay."""

    name: str
    pid: int | None
    """In the lab, of the process that holds its namespaces; null while there is none."""
    restarts: int
    """How often that process was killed and restarted."""


class StatusAnswer(TypedDict):
    """`status -o json`; with several labs and none named: a list of these."""

    lab: str
    pid: NotRequired[int]
    """The lab's PID 1 in the host's PID namespace; the command line adds it."""
    state: Literal["starting", "ready", "degraded"]
    """Degraded: an agent, a pod, an etcd member, the DNS or a machine is unhealthy; terminating pods do not count."""
    since: str
    """RFC 3339, UTC."""
    cluster_file: str
    """The argument of `up`."""
    rundir: str
    """`/run/testbed/LAB`."""
    switch: str
    """The kind of the underlay's switches: `bridge` or `ovs`."""
    nodes: list[NodeStatus]
    pods: list[PodLine]
    services: list[ServiceLine]
    dns: DnsStatus | None
    """Null without a DNS."""
    etcd: list[EtcdMemberStatus]
    machines: list[MachineStatus]
    faults: list[str]
    """Active faults, a sentence each; `fault list -o json` has more."""


class PingAnswer(TypedDict):
    """One pair of `ping -o json`, which is a list.

    For all pairs (no source named), those of terminating pods are omitted.
    """

    source: str
    destination: str
    address: str
    sent: int
    received: int
    ttl: int | None
    """TTL of the last reply."""
    rtt_ms: list[float]
    """One for each reply."""
    error: str | None
    """The last ICMP error in words, with its sender."""
    skipped: str | None
    """Why missing replies are not losses: a pod of the pair was terminated during the ping. Such pairs do not change
    the exit code."""


class IperfAnswer(TypedDict):
    """`iperf -o json`."""

    protocol: Literal["tcp", "udp"]
    seconds: float
    bits_per_second: float
    """Received bits."""
    retransmits: NotRequired[int]
    """TCP only."""
    packets: NotRequired[int]
    """UDP only."""
    lost_percent: NotRequired[float]
    """UDP only."""


class EventLine(TypedDict):
    """One event as the lab keeps it (`events.jsonl`); `get events -o json` has Kubernetes' shape."""

    at: str
    """RFC 3339, UTC."""
    type: str
    """`Normal` or `Warning`."""
    object: str
    """`pod/nginx`, `node/node1`, …"""
    reason: str
    message: str


class ChangedObject(TypedDict):
    """The change of one object."""

    kind: str
    name: str
    outcome: str
    """`created`, `configured`, `unchanged`; `deleted`; `scaled`."""


class ApplyAnswer(TypedDict):
    """`apply -o json`."""

    objects: list[ChangedObject]
    warnings: list[str]
    reach: NotRequired[list[ReachChange]]
    """With `--dry-run`: pairs of pods that policies or labels of the files would open or close to each other."""


class DeleteAnswer(TypedDict):
    """`delete -o json`."""

    objects: list[ChangedObject]
    missing: list[str]
    """One line for each object that did not exist."""


class ScaleAnswer(TypedDict):
    """`scale -o json`."""

    objects: list[ChangedObject]
    before: int
    replicas: int


class NodeAnswer(TypedDict):
    """`node add|drain|uncordon|delete -o json`."""

    name: str
    address: NotRequired[str]
    """Of an added node."""
    subnet: NotRequired[str]
    """Of an added node."""
    stay: NotRequired[list[str]]
    """Pods without a controller that stay on a drained node."""
    lost: NotRequired[list[str]]
    """Such pods that were deleted with a node."""
    agents: NotRequired[dict[str, str]]
    """For `up` on a running lab: each node's agent, as JSON of the cluster file's `agent`."""


class KernelChange(TypedDict):
    """One change of the kernel: `commands -o json` is a list of these, the journal."""

    at: float
    """Seconds since the epoch."""
    node: str
    command: list[str]
    """The equivalent command."""
    input: str | None
    """The command's standard input, such as an nft script."""
    why: str


class CommandsAnswer(TypedDict):
    """All changes of the kernel."""

    script: str
    changes: list[KernelChange]


class EndedAnswer(TypedDict):
    """The end of a program that ran on the client's streams."""

    exit: int
    """128 + the signal's number after a signal."""


class ApiAnswer(TypedDict):
    """How to reach the lab's API server."""

    port: int
    """A port of the host's loopback."""
    kubeconfig: str
    """A file that its owner alone can read."""


class ForwardTarget(TypedDict):
    """The target of a forwarded port."""

    to: str
