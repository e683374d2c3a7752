"""The requests to a lab: each verb of the control socket, by its name on the wire and the type of its answer.

Both ends are checked against these: `ask(lab, STATUS)` is a StatusAnswer, and `Verb(STATUS, …)` must return one. Light:
the types are for mypy alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from testbed.control.answers.bench import (
        EtcdRestartAnswer,
        ManyPingsAnswer,
        MeasurementAnswer,
        MemoryAnswer,
        NeighboursAnswer,
        SecondsAnswer,
    )
    from testbed.control.answers.faults import CheckAnswer, ExerciseAnswer, FaultAnswer, HealAnswer, HintAnswer
    from testbed.control.answers.graph import GraphAnswer
    from testbed.control.answers.lab import (
        ApiAnswer,
        ApplyAnswer,
        CommandsAnswer,
        DeleteAnswer,
        Description,
        EndedAnswer,
        EventLine,
        IperfAnswer,
        NodeAnswer,
        PingAnswer,
        ScaleAnswer,
        StatusAnswer,
    )
    from testbed.control.answers.policy import PolicyAnswer
    from testbed.control.answers.trace import TraceAnswer

AnswerT = TypeVar("AnswerT")


class Question(Generic[AnswerT]):
    """A verb of the control socket."""

    def __init__(self, name: str) -> None:
        self.name = name


STATUS: "Question[StatusAnswer]" = Question("status")
GET: "Question[Sequence[Any]]" = Question("get")
"""Objects of a kind, in the shape of that kind."""
DESCRIBE: "Question[Description]" = Question("describe")
EVENTS: "Question[Sequence[EventLine]]" = Question("events")
PING: "Question[Sequence[PingAnswer]]" = Question("ping")
GRAPH: "Question[GraphAnswer]" = Question("graph")
IPERF: "Question[IperfAnswer]" = Question("iperf")
RESTART: "Question[Sequence[str]]" = Question("restart")
COMMANDS: "Question[CommandsAnswer]" = Question("commands")
TRACE: "Question[TraceAnswer]" = Question("trace")
POLICY: "Question[PolicyAnswer]" = Question("policy")

APPLY: "Question[ApplyAnswer]" = Question("apply")
DELETE: "Question[DeleteAnswer]" = Question("delete")
SCALE: "Question[ScaleAnswer]" = Question("scale")
NODE: "Question[NodeAnswer]" = Question("node")
API: "Question[ApiAnswer]" = Question("api")
LEAVE_ETCD: "Question[Sequence[str]]" = Question("leave_etcd")
"""The lab is about to end: end its agents, and remove its keys from an existing etcd cluster."""

FAULT: "Question[FaultAnswer]" = Question("fault")
FAULTS: "Question[Sequence[FaultAnswer]]" = Question("faults")
HEAL: "Question[Sequence[HealAnswer]]" = Question("heal")
CHECK: "Question[CheckAnswer]" = Question("check")
EXERCISE: "Question[ExerciseAnswer]" = Question("exercise")
HINT: "Question[HintAnswer]" = Question("hint")
RESOURCES: "Question[Mapping[str, int]]" = Question("resources")

BENCH_TAKE: "Question[None]" = Question("bench_take")
BENCH_MEASURE: "Question[MeasurementAnswer]" = Question("bench_measure")
BENCH_MEMORY: "Question[MemoryAnswer]" = Question("bench_memory")
BENCH_PROCESSOR: "Question[SecondsAnswer]" = Question("bench_processor")
BENCH_NEIGHBOURS: "Question[NeighboursAnswer]" = Question("bench_neighbours")
BENCH_PINGS: "Question[ManyPingsAnswer]" = Question("bench_pings")
BENCH_AGENT_KILLED: "Question[SecondsAnswer]" = Question("bench_agent_killed")
BENCH_ETCD_RESTARTED: "Question[EtcdRestartAnswer]" = Question("bench_etcd_restarted")

# These run a program on the client's streams.
EXEC: "Question[EndedAnswer]" = Question("exec")
SHELL: "Question[EndedAnswer]" = Question("shell")
CLI: "Question[EndedAnswer]" = Question("cli")
LOGS: "Question[EndedAnswer]" = Question("logs")
ETCDCTL: "Question[EndedAnswer]" = Question("etcdctl")
FORWARD: "Question[EndedAnswer]" = Question("forward")
CAPTURE: "Question[EndedAnswer]" = Question("capture")
HEARTBEAT: "Question[EndedAnswer]" = Question("heartbeat")
