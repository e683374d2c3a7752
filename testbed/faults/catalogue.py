"""The faults, their names and parameters, and the parser of their words. Pure and light.

    agent kill node1            link loss node1 s1 30            partition node1,etcd1 / node2

A fault is a few words, which are the same on the command line, in pytest (`lab.fault("agent kill node1")`) and in
tables of tests.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Literal

from testbed.errors import InvalidInput
from testbed.spelling import listed, meant

DURATION = re.compile(r"(?P<number>[-+]?\d+(\.\d+)?)(?P<unit>ms|s|m|h)?")
HEAL_LIMIT_S = 60.0
"""How long `fault heal` and the end of a fault wait until everything affected is ready again."""
UNIT_S = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


class NoSuchFault(InvalidInput):
    """The words are not a fault; the message has the problem and the expected form."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One word after the fault's name."""

    name: str
    """Upper case, as in the help."""
    kind: str
    """The check in `_value`; the lab, which has the names, checks `name`."""
    default: str | None = None
    """The value of a missing word; None: it is required."""
    least: float = -math.inf
    most: float = math.inf

    def __str__(self) -> str:
        return self.name if self.default is None else f"[{self.name}]"


Loses = Literal["", "machine", "cable", "sides", "names"]
"""Where a fault loses packets: at the machine or pod that is its first word, on the cable between its first two,
between its sides, on the path to the cluster's DNS; or nowhere."""
Holds = Literal["", "agent", "address", "plug"]
"""What a fault keeps in another state until it is healed, so that no other may change it meanwhile: whether its node's
agent runs, its node's address, whether its cable is plugged in; or nothing that others change."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault: its name, its parameters and a description in one line."""

    name: str
    parameters: tuple[Parameter, ...]
    summary: str
    loses: Loses = ""
    holds: Holds = ""

    @property
    def usage(self) -> str:
        """Return the usage, as in the help."""
        return " ".join([self.name, *map(str, self.parameters)])


Value = str | float | IPv4Address | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """A requested fault with its words checked."""

    kind: FaultKind
    values: tuple[Value, ...]
    """One for each parameter of the kind."""
    words: tuple[str, ...]
    """As typed."""

    @property
    def text(self) -> str:
        """Return the request as one line."""
        return " ".join(self.words)

    @property
    def held(self) -> tuple[str, ...]:
        """Return what the fault holds, and of which node or cable, whichever end is named first; empty: nothing."""
        owners = self.values[: 2 if self.kind.holds == "plug" else 1]
        return (self.kind.holds, *sorted(map(str, owners))) if self.kind.holds else ()


NODE = Parameter("NODE", "name")
AGENT_FAULTS = (
    FaultKind("agent kill", (NODE,), "SIGKILL to the node's agent; the lab restarts it", loses="machine"),
    FaultKind(
        "agent crashloop",
        (NODE, Parameter("TIMES", "number", "20", 1, 10_000), Parameter("PERIOD", "seconds", "3s", 0.1, 3600)),
        "SIGKILL to the node's agent again and again",
        loses="machine",
    ),
    FaultKind("agent stop", (NODE,), "the agent is stopped and stays down", loses="machine", holds="agent"),
    FaultKind("agent pause", (NODE,), "SIGSTOP: the agent is suspended, its sockets and devices stay", loses="machine"),
    FaultKind("agent hang", (NODE,), "the agent's main loop hangs, its other threads continue", loses="machine"),
)
MEMBER = Parameter("MEMBER", "name")
ETCD_FAULTS = (
    FaultKind(
        "etcd kill", (MEMBER,), "SIGKILL to a member (or: leader, follower); the lab restarts it", loses="machine"
    ),
    FaultKind("etcd stop", (MEMBER,), "SIGKILL, and the member stays down", loses="machine"),
    FaultKind("etcd pause", (MEMBER,), "SIGSTOP: the member is suspended", loses="machine"),
    FaultKind("etcd partition", (MEMBER,), "the member is cut off in both directions", loses="machine"),
    FaultKind("etcd wipe", (MEMBER,), "its data is deleted; alone it restarts empty, with others it rejoins"),
    FaultKind("etcd snapshot", (MEMBER,), "its data is saved, for `etcd restore`; nothing breaks"),
    FaultKind("etcd restore", (MEMBER,), "it restarts with the data of `etcd snapshot`: the revision goes back"),
    FaultKind("etcd compact", (), "all history is compacted: older watches must list again"),
    FaultKind("etcd quota", (MEMBER,), "its database is full: etcd accepts no writes"),
)
ENDS = (Parameter("A", "name"), Parameter("B", "name"))
PERCENT = Parameter("PERCENT", "number", least=0.01, most=100)
LINK_FAULTS = (
    FaultKind("link down", ENDS, "the cable between A and B is unplugged at the switch", loses="cable", holds="plug"),
    FaultKind(
        "link flap",
        (*ENDS, Parameter("TIMES", "number", "10", 1, 10_000), Parameter("PERIOD", "seconds", "1s", 0.02, 3600)),
        "it is repeatedly unplugged and plugged in",
        loses="cable",
        holds="plug",
    ),
    FaultKind(
        "link rate",
        (*ENDS, Parameter("MBIT", "number", least=0.01, most=100_000)),
        "its bandwidth is limited",
        loses="cable",
    ),
    FaultKind("link loss", (*ENDS, PERCENT), "it loses packets", loses="cable"),
    FaultKind(
        "link delay",
        (*ENDS, Parameter("TIME", "seconds", least=0.001, most=60), Parameter("JITTER", "seconds", "0s", 0, 60)),
        "packets are delayed",
        loses="cable",
    ),
    FaultKind("link duplicate", (*ENDS, PERCENT), "packets arrive twice"),
    FaultKind("link corrupt", (*ENDS, PERCENT), "packets arrive with a flipped bit", loses="cable"),
    FaultKind("link reorder", (*ENDS, PERCENT), "packets overtake others"),
)
SIDES = (Parameter("A,B", "names"), Parameter("/", "word", "/"), Parameter("C", "names", ""))
PARTITION_FAULTS = (
    FaultKind(
        "partition",
        SIDES,
        "A and B are cut off from C, in both directions; without C: from everything else",
        loses="sides",
    ),
    FaultKind("oneway", SIDES, "C receives nothing from A and B; they still receive from it", loses="sides"),
)
NODE_FAULTS = (
    FaultKind("lease revoke", (NODE,), "the node's etcd lease is revoked", loses="machine"),
    FaultKind("lease delete", (NODE,), "the node's key is deleted, its etcd lease stays", loses="machine"),
    FaultKind("lease steal", (NODE,), "the node's key shows another node's address", loses="machine"),
    FaultKind("device delete", (NODE,), "its overlay device is deleted", loses="machine"),
    FaultKind("rules flush", (NODE,), "its nftables rules are deleted", loses="machine"),
    FaultKind("disk full", (NODE,), "the file system of subnet.env is full"),
    FaultKind(
        "clock jump", (NODE, Parameter("BY", "seconds")), "the agent's wall clock is off by this much (libfaketime)"
    ),
    FaultKind(
        "certificate expire",
        (NODE,),
        "the agent's certificate for etcd has expired, and its connection is cut",
        loses="machine",
    ),
    FaultKind("certificate rotate", (NODE,), "the agent's certificate is replaced by another valid one"),
    FaultKind(
        "node crash",
        (NODE,),
        "power is cut: agent, pods, devices, rules and /run are gone",
        loses="machine",
        holds="agent",
    ),
    FaultKind(
        "node reboot",
        (NODE, Parameter("OFF", "seconds", "2s", 0.1, 3600)),
        "power is cut and comes back after OFF",
        loses="machine",
        holds="agent",
    ),
    FaultKind(
        "node readdress",
        (NODE, Parameter("ADDRESS", "address")),
        "its underlay address changes",
        loses="machine",
        holds="address",
    ),
    FaultKind(
        "pod kill",
        (Parameter("POD", "name"),),
        "SIGKILL to the process that holds the pod's namespaces",
        loses="machine",
    ),
)
DNS_FAULTS = (
    FaultKind("dns kill", (), "SIGKILL to the cluster's DNS; the lab restarts it", loses="names"),
    FaultKind("dns stop", (), "SIGKILL, and it stays down", loses="names"),
    FaultKind("dns pause", (), "SIGSTOP: it is suspended", loses="names"),
)
KINDS: tuple[FaultKind, ...] = AGENT_FAULTS + ETCD_FAULTS + LINK_FAULTS + PARTITION_FAULTS + NODE_FAULTS + DNS_FAULTS
"""Every fault, in the order of the help."""


def parse(words: Sequence[str]) -> FaultRequest:
    """Parse `words` as a fault. Raises NoSuchFault."""
    kind = _kind(words)
    given = list(words[len(kind.name.split()) :])
    if len(given) > len(kind.parameters):
        raise NoSuchFault(f"{kind.name}: too many words (got {' '.join(given)}; want {kind.usage})")
    values = []
    for number, parameter in enumerate(kind.parameters):
        word = given[number] if number < len(given) else parameter.default
        if word is None:
            raise NoSuchFault(f"{kind.name}: {parameter.name} is missing (want {kind.usage})")
        values.append(_value(kind, parameter, word) if word else None)
    return FaultRequest(kind, tuple(values), tuple(words))


def _kind(words: Sequence[str]) -> FaultKind:
    for kind in KINDS:
        if tuple(words[: len(kind.name.split())]) == tuple(kind.name.split()):
            return kind
    asked = " ".join(words[:2]) or "nothing"
    group = [kind.name for kind in KINDS if words and kind.name.split()[0] == words[0]]
    near = meant(asked, [kind.name for kind in KINDS])
    wanted = f"did you mean {' or '.join(near)}?" if near and not group else f"want {listed(group or _groups(), asked)}"
    raise NoSuchFault(f"no such fault (got {asked}; {wanted})")


def _groups() -> list[str]:
    return [f"{group} …" for group in dict.fromkeys(kind.name.split()[0] for kind in KINDS)]


def _value(kind: FaultKind, parameter: Parameter, word: str) -> Value:
    """Parse `word` as a parameter's value. Raises NoSuchFault."""
    where = f"{kind.name}: {parameter.name}"
    if parameter.kind == "name":
        return word
    if parameter.kind == "address":
        try:
            return IPv4Address(word)
        except AddressValueError as error:
            raise NoSuchFault(f"{where}: not an address (got {word}; want an IPv4 address)") from error
    if parameter.kind == "names":
        names = tuple(word.split(","))
        if not all(names):
            raise NoSuchFault(f"{where}: an empty name (got {word}; want names with commas between them)")
        return names
    if parameter.kind == "word":
        if word != parameter.name:
            raise NoSuchFault(f"{kind.name}: got {word}; want {kind.usage}")
        return word
    number = _seconds(word) if parameter.kind == "seconds" else _number(word)
    if number is None or not parameter.least <= number <= parameter.most:
        unit = "a time such as 200ms, 5s or 1h" if parameter.kind == "seconds" else "a number"
        raise NoSuchFault(f"{where}: got {word}; want {unit}{_range(parameter)}")
    return number


def _range(parameter: Parameter) -> str:
    if math.isinf(parameter.least):
        return ""
    unit = " s" if parameter.kind == "seconds" else ""
    upper = "" if math.isinf(parameter.most) else f" to {parameter.most:g}{unit}"
    return f", {parameter.least:g}{unit}{upper}" if upper else f" of {parameter.least:g}{unit} or more"


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds(word: str) -> float | None:
    found = DURATION.fullmatch(word)
    return None if found is None else float(found["number"]) * UNIT_S[found["unit"]]
