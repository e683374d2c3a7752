"""Mininet topologies as wirings: those in topologies/, and classes in a user's own file.

    --topo tree,depth=2,fanout=3      a name and parameters, as `mn --topo` takes them
    --topo ./rack.py:Rack,racks=3     a class in a file
    --topo ./rack.py,rack,racks=3     a name in the file's `topos`

Bad input raises a ValueError with a message for people; a topology that grows without bounds is stopped while it grows.
"""

import inspect
import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mininet.topo import Topo

from testbed.cluster.problems import near_match, shorten
from testbed.cluster.wiring import DURATION, Cable, Shaping, Wiring
from testbed.places import TOPOLOGIES

MOST_PARTS = 5000  # nodes, routers and switches together; more than any user's machine holds

_KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LINK_STRUCTURE = frozenset(
    {"node1", "node2", "port1", "port2", "params1", "params2", "cls", "fast"}
    | {"intfName1", "intfName2", "addr1", "addr2"}
)
_QDISC_CHOICE = frozenset({"use_htb", "use_hfsc", "use_tbf", "speedup"})
"""The testbed chooses the queueing discipline itself."""
_FOR_PLAIN_MININET = frozenset({"ip", "mac", "defaultRoute", "router", "cls", "isSwitch"})
_OF_ONE_END = frozenset({"ip", "mac"})


class WrongTopology(ValueError):
    """A topology has parts that the testbed does not support: all of them, one message each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class TooManyParts(Exception):
    """A topology has more nodes and switches than any machine holds."""


@dataclass(frozen=True, slots=True)
class TopologyParameter:
    """A parameter of a topology."""

    name: str
    kind: type | None
    """int, float, bool or str; None if the topology does not say."""
    default: object


def known_topologies() -> list[str]:
    """Return the valid names for `underlay.topology` and `--topo`."""
    return sorted(path.stem for path in TOPOLOGIES.glob("[a-z]*.py"))


@dataclass(frozen=True, slots=True)
class DescribedParameter:
    """A parameter of one of our topologies, with its description."""

    name: str
    type: str | None
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class DescribedTopology:
    """One of our topologies, with its description."""

    name: str
    description: str
    parameters: tuple[DescribedParameter, ...]


def describe_topologies() -> list[DescribedTopology]:
    """Return our topologies with their parameters, defaults and meanings."""
    found = []
    for name in known_topologies():
        shape = topology_class(name)
        text = inspect.getdoc(shape.build) or ""
        meanings = dict(line.split(": ", 1) for line in text.splitlines()[2:] if ": " in line)
        parameters = [
            DescribedParameter(
                one.name, one.kind.__name__ if one.kind else None, one.default, meanings.get(one.name, "")
            )
            for one in parameters_of(shape)[0]
        ]
        found.append(DescribedTopology(name, inspect.getdoc(shape) or "", tuple(parameters)))
    return found


def topology_class(name: str) -> type[Topo]:
    """Return the class of one of our topologies. Raises ValueError with the known names."""
    known = known_topologies()
    if name not in known:
        want = ", ".join(known)
        raise ValueError(f"no such topology (got {shorten(name)}; want {want}){near_match(name, known)}")
    found: type[Topo] = runpy.run_path(str(TOPOLOGIES / f"{name}.py"))["topos"][name]
    return found


def class_in_file(path: Path, name: str | None) -> type[Topo]:
    """Return a topology of a user's file, which is executed, as by `mn --custom`. Raises ValueError."""
    try:
        names = runpy.run_path(str(path))
    except OSError as error:
        raise ValueError(f"cannot be read (got {error.strerror}; want a Python file with a Mininet topology)") from None
    except SyntaxError as error:
        raise ValueError(f"not Python (got {error.msg} in line {error.lineno}; want a Mininet topology)") from None
    except Exception as error:
        got = shorten(f"{type(error).__name__}: {error}", 200)
        raise ValueError(f"the file fails when it is executed (got {got}; want a Mininet topology)") from error
    listed = names.get("topos")
    found = {key: value for key, value in names.items() if _is_topology(value) and value.__module__ == "<run_path>"}
    found |= {key: value for key, value in listed.items() if callable(value)} if isinstance(listed, dict) else {}
    if name is None and len(set(found.values())) == 1:
        name = next(iter(found))
    if name not in found:
        want = ", ".join(sorted(found)) or "a class derived from mininet.topo.Topo, or topos = {NAME: CLASS}"
        near = near_match(name, found) if name else ""
        raise ValueError(f"no such topology in the file (got {name or 'no name'}; want {want}){near}")
    chosen: type[Topo] = found[name]
    return chosen


def _is_topology(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Topo) and value is not Topo


def parameters_of(topology: type[Topo]) -> tuple[list[TopologyParameter], bool]:
    """Return the parameters of a topology, and whether it accepts others (`**params`)."""
    own_constructor = inspect.isclass(topology) and topology.__init__ is not Topo.__init__
    function = topology.__init__ if own_constructor else getattr(topology, "build", topology)
    declared = list(inspect.signature(function).parameters.values())
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared)
    named = [
        TopologyParameter(parameter.name, _kind_of(parameter), parameter.default)
        for parameter in declared
        if parameter.name != "self" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return named, takes_any


def _kind_of(parameter: inspect.Parameter) -> type | None:
    if parameter.annotation in _KINDS:
        kind: type = parameter.annotation
        return kind
    return type(parameter.default) if type(parameter.default) in _KINDS else None


def parameters_from_words(name: str, topology: type[Topo], words: Sequence[str]) -> dict[str, Any]:
    """Parse `depth=2` or, by position, `2`, as values of the parameters' types.

    Raises ValueError for the first wrong one.
    """
    declared, takes_any = parameters_of(topology)
    given: dict[str, Any] = {}
    for position, word in enumerate(words):
        key, equals, text = word.partition("=")
        if not equals:
            if position >= len(declared) or any("=" in earlier for earlier in words[:position]):
                raise ValueError(f"not a parameter of {name} (got {shorten(word)}; want {_wanted(declared)})")
            key, text = declared[position].name, word
        if key in given:
            raise ValueError(f"a parameter twice (got {key}; want it once)")
        kind = next((parameter.kind for parameter in declared if parameter.name == key), None)
        if kind is None and not takes_any and key not in {parameter.name for parameter in declared}:
            raise ValueError(unknown_parameter(name, key, declared))
        given[key] = _parsed(key, text, kind)
    return given


def unknown_parameter(name: str, key: str, declared: Sequence[TopologyParameter]) -> str:
    """Return the error for a parameter that a topology does not have."""
    near = near_match(key, [parameter.name for parameter in declared])
    return f"unknown parameter of {name} (got {shorten(key)}; want {_wanted(declared)}){near}"


def _wanted(declared: Sequence[TopologyParameter]) -> str:
    return ", ".join(parameter.name for parameter in declared) or "none"


def _parsed(key: str, text: str, kind: type | None) -> object:
    if kind is str:
        return text
    if kind is bool:
        value: object = _TRUTH.get(text.lower())
    else:
        value = next((number for to in (int, float) if (number := _number(text, to)) is not None), None)
        if kind is None:
            return text if value is None else value
    complaint = wrong_type(value, kind)
    if complaint:
        raise ValueError(f"{key}: wrong type (got {shorten(text) if text else 'nothing'}; want {complaint})")
    return value


def _number(text: str, to: type) -> object:
    try:
        return to(text)
    except ValueError:
        return None


def wrong_type(value: object, kind: type | None) -> str:
    """Return what is expected instead of `value`; empty if it is right."""
    if kind is None or type(value) is kind or (kind is float and type(value) is int):
        return ""
    return _KINDS[kind]


def build(topology: type[Topo], parameters: Mapping[str, Any]) -> Wiring:
    """Build the graph and convert it. Raises ValueError with a message for people, TooManyParts if it is too big."""
    return wiring_of(make(topology, parameters))


def make(topology: type[Topo], parameters: Mapping[str, Any]) -> Topo:
    """Build the graph. Raises ValueError with a message for people, TooManyParts if it is too big."""
    before = Topo.addNode
    count = 0

    def add_node(self: Topo, name: str, **options: object) -> str:
        nonlocal count
        count += 1
        if count > MOST_PARTS:
            raise TooManyParts(f"more than {MOST_PARTS}")
        return str(before(self, name, **options))

    # Every topology adds its nodes and switches through this method; only here can it be stopped in time.
    Topo.addNode = add_node
    try:
        return topology(**parameters)
    except (TooManyParts, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"cannot be built ({type(error).__name__}: {shorten(error, 200)})") from error
    finally:
        Topo.addNode = before


def wiring_of(topology: Topo) -> Wiring:
    """Convert a built Mininet topology. Raises WrongTopology for unsupported parts."""
    options = {name: topology.nodeInfo(name) for name in topology.nodes()}
    routers = tuple(name for name in topology.hosts() if _is_router(options[name]))
    nodes = tuple(name for name in topology.hosts() if name not in routers)
    problems = [problem for name in nodes for problem in _host_problems(name, options[name])]
    switches = tuple(topology.switches())
    preferred = [name for name in switches if options[name].get("prio")]
    root = min(preferred, key=lambda name: options[name]["prio"], default=None)
    cables = []
    for first, second, info in topology.links(sort=True, withInfo=True):
        found = list(_link_problems(f"{first} - {second}", info))
        problems += found
        cables.append(Cable(first, second, Shaping() if found else Shaping(**_shaping(info))))
    if problems:
        raise WrongTopology(problems)
    return Wiring(nodes, switches, tuple(cables), routers, root)


def _is_router(options: Mapping[str, Any]) -> bool:
    """Report whether it has `router=True`, or a class like LinuxRouter in Mininet's examples."""
    return bool(options.get("router")) or "router" in getattr(options.get("cls"), "__name__", "").lower()


def _host_problems(name: str, options: Mapping[str, Any]) -> Iterator[str]:
    kind = getattr(options.get("cls"), "__name__", "Host")
    if kind not in ("Host", "Node"):
        yield f"{name}: a host of another class (got {kind}; want Host, or a class with Router in its name)"
    for option in sorted(set(options) - _FOR_PLAIN_MININET):
        yield f"{name}: a host option that the testbed does not support (got {option}; want none)"


_SHAPING = {
    "bw": "bandwidth",
    "delay": "delay",
    "jitter": "jitter",
    "loss": "loss",
    "max_queue_size": "max_queue_size",
}
"""A parameter of Mininet's TCLink → its name here."""


def _shaping(info: Mapping[str, Any]) -> dict[str, Any]:
    return {ours: info[theirs] for theirs, ours in _SHAPING.items() if info.get(theirs) is not None}


def _link_problems(cable: str, info: Mapping[str, Any]) -> Iterator[str]:
    for option in sorted(set(info) - set(_SHAPING) - _LINK_STRUCTURE - _QDISC_CHOICE):
        want = ", ".join(_SHAPING)
        yield f"{cable}: a link option that the testbed does not support (got {option}; want {want})"
    for side in ("params1", "params2"):
        for option in sorted(set(info.get(side) or {}) - _OF_ONE_END):
            yield f"{cable}: an option of one end only (got {option} in {side}; want it for both ends)"
    given = _shaping(info)
    for name in ("delay", "jitter"):
        if name in given and not DURATION.fullmatch(str(given[name])):
            yield f"{cable}: {name}: not a time (got {shorten(given[name])}; want a number and us, ms or s)"
    bandwidth, loss = given.get("bandwidth", 1), given.get("loss", 0)
    if not isinstance(bandwidth, int | float) or not 0 < bandwidth <= 100_000:
        yield f"{cable}: bw: out of range (got {shorten(bandwidth)}; want Mbit/s above 0)"
    if not isinstance(loss, int | float) or not 0 <= loss <= 100:
        yield f"{cable}: loss: out of range (got {shorten(loss)}; want 0 to 100 percent)"
