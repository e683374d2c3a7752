"""Answers of verbs without a lab: doctor, machines, topologies, validate."""

from typing import Any, TypedDict


class DoctorCheck(TypedDict):
    """One check of `doctor -o json`, which is a list."""

    name: str
    ok: bool
    found: str
    want: str
    remedy: str
    """How to get it."""
    needed_for: str
    """What does not work without it; empty: no lab works."""


class MachineLine(TypedDict):
    """One machine of `machines -o json`."""

    subnet: str
    public_ip: str
    backend: str
    seconds_left: int | None
    """Until its lease expires unless it is renewed; null: a reservation."""
    here: bool
    """Whether it is this machine."""
    answers: bool | None
    """Whether its pods' gateway or else its overlay address answers a ping; null: not asked, this machine has not
    joined."""
    gateway_answers: bool | None
    """Whether the gateway replies; a machine without a bridge has none."""


class MachinesAnswer(TypedDict):
    """`machines -o json`."""

    network: str
    backend: str
    joined: bool
    """Whether this machine is in the network."""
    machines: list[MachineLine]


class ClusterLine(TypedDict):
    """One bundled cluster."""

    name: str
    nodes: int
    pods: int
    topology: str


class TopologyParameterLine(TypedDict):
    """One parameter of a topology."""

    name: str
    type: str | None
    default: Any
    meaning: str


class TopologyLine(TypedDict):
    """One topology."""

    name: str
    parameters: list[TopologyParameterLine]
    description: str


class ExerciseLine(TypedDict):
    """One exercise."""

    name: str
    """For `up`."""
    level: int


class TopologiesAnswer(TypedDict):
    """`topologies -o json`."""

    clusters: list[ClusterLine]
    topologies: list[TopologyLine]
    exercises: list[ExerciseLine]


class ValidateAnswer(TypedDict):
    """`validate -o json`."""

    cluster: str
    nodes: list[str]
    pods: list[str]
    deployments: dict[str, int]
    """The desired number of pods of each."""
    replicaSets: dict[str, int]
    """The desired number of pods of each; without those that a lab creates for Deployments."""
    daemonSets: list[str]
