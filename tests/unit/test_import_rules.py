"""Who may import whom. docs/architecture.md has the picture; the reasons stand here.

Imports are read from the source, at module level and inside functions, so that an import which only one verb
executes is seen too.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "testbed", "topologies")

MAY_IMPORT = {  # package: {what it may import besides the standard library: why}
    "agent": {
        "agent": "itself; never testbed, topologies or mininet: it runs on plain machines, as a peer of flanneld",
        "etcd3": "the registry",
        "grpc": "etcd3's transport, whose errors and channel options the registry handles",
        "pyroute2": "links, addresses and routes",
        "cffi": "the native data path",
        "cryptography": "when certificates expire",
        "_cffi_backend": "the same; the part of cffi that its generated module needs",
    },
    "testbed": {
        "testbed": "itself",
        "mininet": "the underlay",
        "agent.errors": "what the rooms below raise",
        "agent.lease": "shows leases and waits for them",
        "agent.netconfig": "the cluster file holds flannel's own network config and is checked like it",
        "agent.options": "flags for our agent are checked like its own, in a cluster file and by `testbed join`",
        "agent.etcd": "`testbed machines` lists leases where there is no lab",
        "agent.kernel": "one way to read, change and watch the kernel, with one journal",
        "agent.datapath.packet": "traces and captures read IPv4 headers and checksums as the data path does",
        "agent.node.other_agents": "`testbed join` notices an agent or a flanneld that runs",
        "agent.node.subnet_env": "pins a subnet by flannel's own file, and reads what the agent wrote there",
        "agent.daemon.memory": "the supervisor runs as long as an agent and must not grow either",
        "agent.assembly": "`testbed join` chooses the underlay and opens etcd as an agent does",
        "agent.__main__": "a lab's agents are forks of a warm process",
        "agent.datapath.native.library": "the same: it is loaded before the fork",
        "cryptography": "the lab's certificate authority",
        "click": "the command line",
        "aiohttp": "the API server: HTTP and WebSockets",
        "jsonpatch": "the API server: JSON patches",
        "packaging": "doctor compares versions with the ranges of pyproject.toml",
        "matplotlib": "pictures of bench",
        "rich": "tables and colour",
        "pydantic": "the cluster file",
        "pydantic_core": "the cluster file",
        "yaml": "the cluster file",
        "pytest": "the fixtures for users' tests",
    },
    "topologies": {
        "topologies": "itself",
        "mininet.topo": "a topology is data; with nothing else imported `mn --custom topologies/tree.py` works too",
    },
}

ONLY_IN = {  # import: (the modules that may, why)
    "etcd3": ("agent.etcd.*", "its errors are translated in one place, and another store replaces only these"),
    "grpc": ("agent.etcd.*", "the same"),
    "pyroute2": ("agent.kernel.*", "every kernel change goes through one journal, and is read and made in one way"),
    "cffi": ("agent.datapath.native*", "without a compiler the Python pump must still work"),
    "matplotlib": ("testbed.bench.plot*", "half a second to import, and wanted for --plot alone"),
    "aiohttp": ("testbed.api.*", "only what serves kubectl needs it"),
    "jsonpatch": ("testbed.api.patches", "the same"),
    "pytest": ("testbed.pytest_plugin", "a lab runs without pytest"),
}

AGENT_ROOMS = (
    # From the door to the ground: a file imports from lines below its own. Rooms on one line may know each other where
    # that makes no circle.
    ("agent.__main__",),
    ("agent.agent",),
    ("agent.commands",),
    ("agent.assembly",),
    ("agent.node",),
    ("agent.backends",),
    ("agent.datapath", "agent.kernel"),
    ("agent.leases",),
    ("agent.etcd",),
    ("agent.netconfig", "agent.options"),
    ("agent.daemon",),
    ("agent.lease", "agent.errors"),
)

TESTBED_ROOMS = (
    # From the door to the ground, as above.
    ("testbed.pytest_plugin", "testbed.__main__"),
    ("testbed.command",),
    ("testbed.join",),
    ("testbed.testing",),
    ("testbed.ui", "testbed.api"),
    ("testbed.graph",),
    ("testbed.supervisor",),
    ("testbed.bench",),
    ("testbed.exercises",),
    ("testbed.faults",),
    ("testbed.trace",),
    ("testbed.capture",),
    ("testbed.services", "testbed.dns", "testbed.workloads", "testbed.policies"),
    ("testbed.lab",),
    ("testbed.pods",),
    ("testbed.host",),
    ("testbed.cgroups",),
    ("testbed.output",),
    ("testbed.control",),
    ("testbed.cni",),
    ("testbed.cluster",),
    ("testbed.processes",),
    ("testbed.errors", "testbed.places", "testbed.plain_files", "testbed.spelling"),
)
ROOMS = {"agent": AGENT_ROOMS, "testbed": TESTBED_ROOMS}
LAB_STATE_USERS = 15
"""Fewer modules than so many take the whole lab; the others name what they need."""

PYROUTE2 = {  # modules of agent.kernel that import pyroute2: why
    "agent.kernel.read": "what the kernel has, turned into values",
    "agent.kernel.apply": "changes that were decided as values",
    "agent.kernel.monitor": "reports of the kernel",
    "agent.kernel.conntrack": "the connection tracker's part of nfnetlink",
    "agent.kernel.wireguard": "wireguard's own family of generic netlink",
    "agent.kernel.fou": "the family of FOU, which pyroute2 does not know",
}

NETLINK = {  # modules that open AF_NETLINK themselves, or change sys.modules: why
    "agent.kernel.nftables": "the generation of the rules and reports of chains, two messages in 50 lines",
    "testbed.trace.nft_trace": "listens to the trace messages of nftables, which pyroute2 does not decode",
    "testbed.pods.listening": "runs in containers' shims, which must stay small: no pyroute2 there",
}

MUST_NOT = {  # modules: {import: why}
    "agent.leases.*": {"agent.kernel": "policy over leases knows neither the kernel nor a way of carrying packets"},
    "agent.backends.*": {
        "agent.leases": "backends take leases as values; only agent.agent joins them",
        "agent.etcd": "the data path never waits for etcd",
    },
    "agent.datapath.*": {"agent.leases": "the data path never waits for the control plane", "agent.etcd": "the same"},
    "agent.kernel.*": {"agent.leases": "the kernel's side takes values", "agent.etcd": "the same"},
}

PURE = (  # decide in values: no sockets, no processes, no clock of their own
    "agent.kernel.changes",
    "agent.kernel.diff",
    "agent.kernel.messages",
    "agent.kernel.values",
    "agent.leases.allocator",
    "agent.netconfig.backend_options",
    "agent.netconfig.config",
    "agent.netconfig.fields",
    "agent.netconfig.layout",
    "agent.errors",
    "agent.lease",
    "agent.datapath.forwarder",
    "agent.datapath.forwarding_table",
    "agent.datapath.packet",
    "testbed.bench.plan",
    "testbed.bench.results",
    "testbed.bench.scale_plan",
    "testbed.pods.probe_state",
    "testbed.policies.evaluate",
    "testbed.policies.pairs",
    "testbed.policies.preview",
    "testbed.policies.ranges",
    "testbed.policies.tables",
    "testbed.policies.world",
    "testbed.cluster.placement",
    "testbed.workloads.reconcile",
)
IMPURE = ("socket", "subprocess", "threading", "time", "select", "fcntl", "http", "urllib.request")

LIGHT = ("testbed.__main__", "testbed.control.client")
"""`status` answers within 0.3 s, so what every verb loads must cost next to nothing."""
HEAVY = (
    "cffi",
    "cryptography",
    "etcd3",
    "grpc",
    "matplotlib",
    "mininet",
    "pydantic",
    "pydantic_core",
    "pyroute2",
    "pytest",
    "rich",
    "yaml",
)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `from a import b` is a.b."""

    name: str
    line: int
    at_start: bool
    """Whether importing the module executes it."""


def within(name: str, package: str) -> bool:
    """Return whether a dotted name is `package` or lies inside it."""
    return name == package or name.startswith(package + ".")


def is_type_checking(test: ast.expr) -> bool:
    """Return whether this is the condition of `if TYPE_CHECKING`, whose body never runs."""
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_below(node: ast.AST, package: str, at_start: bool) -> Iterator[Import]:
    """Yield every import below `node`; `package` is what a leading dot means."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_start)
        elif isinstance(child, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - child.level + 1] if child.level else []
            origin = ".".join([*base, *([child.module] if child.module else [])])
            for alias in child.names:
                yield Import(f"{origin}.{alias.name}", child.lineno, at_start)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and is_type_checking(child.test)
            )
            yield from imports_below(child, package, at_start and not later)


@cache
def sources() -> Mapping[str, Path]:
    """Return every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    """Return every import of a module of ours, in order."""
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    return tuple(imports_below(tree_of(module), package, at_start=True))


def modules_in(*patterns: str) -> list[str]:
    return sorted(name for name in sources() if any(fnmatchcase(name, pattern) for pattern in patterns))


def module_behind(name: str) -> str | None:
    """Return the module of ours that an imported name belongs to; None for others'."""
    while name and name not in sources():
        name = name.rpartition(".")[0]
    return name or None


def place(module: str, found: Import) -> str:
    return f"{sources()[module].relative_to(ROOT)}:{found.line} imports {found.name}"


EVERY_KIND_OF_IMPORT = """
import a
from . import b
from ..c import d
if TYPE_CHECKING:
    import e
def f():
    try:
        import g.h
    finally:
        pass
"""


def test_imports_are_seen_wherever_they_stand() -> None:
    found = imports_below(ast.parse(EVERY_KIND_OF_IMPORT), "top.sub", at_start=True)
    assert {item.name: item.at_start for item in found} == {
        "a": True,
        "top.sub.b": True,
        "top.c.d": True,
        "e": False,
        "g.h": False,
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package: str) -> None:
    assert package in sources(), "the package has gone"
    allowed = MAY_IMPORT[package]
    wrong = [
        place(module, found)
        for module in modules_in(package, f"{package}.*")
        for found in imports_of(module)
        if found.name.split(".")[0] not in sys.stdlib_module_names
        and not any(within(found.name, name) for name in allowed)
    ]
    assert wrong == [], f"{package} may import only {allowed}"


@pytest.mark.parametrize("imported", sorted(ONLY_IN))
def test_library_is_imported_in_one_place(imported: str) -> None:
    where, why = ONLY_IN[imported]
    wrong = [
        place(module, found)
        for module in sources()
        if not any(fnmatchcase(module, pattern) for pattern in where.split())
        for found in imports_of(module)
        if within(found.name, imported)
    ]
    assert wrong == [], f"only {where} may import {imported}: {why}"


def test_rtnetlink_is_spoken_by_pyroute2_in_few_files() -> None:
    users = {module for module in sources() for found in imports_of(module) if within(found.name, "pyroute2")}
    assert users == set(PYROUTE2)


def test_no_other_file_opens_netlink_or_stands_in_for_a_library() -> None:
    users = set()
    for module in sources():
        for node in ast.walk(tree_of(module)):
            opens = isinstance(node, ast.Attribute) and node.attr == "AF_NETLINK"
            replaces = (
                isinstance(node, ast.Subscript)
                and isinstance(node.ctx, ast.Store | ast.Del)
                and ast.unparse(node.value) == "sys.modules"
            )
            if opens or replaces:
                users.add(module)
    assert users == set(NETLINK)


@pytest.mark.parametrize("modules", sorted(MUST_NOT))
def test_module_knows_nothing_above_it(modules: str) -> None:
    wrong = {
        place(module, found): why
        for module in modules_in(modules)
        for found in imports_of(module)
        for name, why in MUST_NOT[modules].items()
        if within(found.name, name)
    }
    assert wrong == {}


def room_of(module: str, rooms: Sequence[Sequence[str]]) -> tuple[int, str] | None:
    """Return the floor and the room that a module belongs to; None for what lies in no room."""
    for floor, names in enumerate(rooms):
        for name in names:
            if within(module, name):
                return floor, name
    return None


def imports_between_rooms(package: str, rooms: Sequence[Sequence[str]]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield (room, imported room, place, whether it leads upward) for each import from one room into another."""
    for module in modules_in(f"{package}.*"):
        own = room_of(module, rooms)
        assert own is not None, f"{module} is in no room: give it one, or add its room to the order"
        for found in imports_of(module):
            behind = module_behind(found.name)
            other = room_of(behind, rooms) if behind is not None else None
            if other is not None and other[1] != own[1]:
                yield own[1], other[1], place(module, found), other[0] < own[0]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return one circle for each node that reaches itself."""
    found = []
    for start in sorted(edges):
        paths = [[start]]
        seen: set[str] = set()
        while paths:
            path = paths.pop()
            for following in sorted(edges.get(path[-1], ())):
                if following == start:
                    found.append([*path, start])
                    paths = []
                    break
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]]


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_are_imported_from_above_only(package: str) -> None:
    found = list(imports_between_rooms(package, ROOMS[package]))
    upward = {where for _, _, where, is_upward in found if is_upward}
    assert upward == set(), "imports go down, see ROOMS"
    edges: dict[str, set[str]] = {}
    for room, other, _, _ in found:
        edges.setdefault(room, set()).add(other)
    assert circles(edges) == []


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_files_make_no_circle(package: str) -> None:
    edges = {
        module: {
            behind
            for found in imports_of(module)
            if (behind := module_behind(found.name)) not in (None, module) and within(behind or "", package)
        }
        for module in modules_in(f"{package}.*")
    }
    assert circles({module: {name for name in names if name} for module, names in edges.items()}) == []


def test_few_modules_take_the_whole_lab() -> None:
    users = [module for module in modules_in("testbed.*") if any("LabState" in one.name for one in imports_of(module))]
    assert len(users) < LAB_STATE_USERS, users


@pytest.mark.parametrize("module", PURE)
def test_decisions_are_pure(module: str) -> None:
    assert module in sources(), "it has gone: take it off the list, or put its successor there"
    wrong = [place(module, found) for found in imports_of(module) if any(within(found.name, name) for name in IMPURE)]
    assert wrong == [], "sockets, processes and clocks belong to the edge; time and randomness are arguments"


@pytest.mark.parametrize("module", LIGHT)
def test_every_verb_starts_without_heavy_imports(module: str) -> None:
    """Follows what importing the module executes, through our own modules."""
    assert module in sources(), "it has gone"
    executed, left = {module}, [module]
    wrong = []
    while left:
        current = left.pop()
        for found in imports_of(current):
            if not found.at_start:
                continue
            if any(within(found.name, name) for name in HEAVY):
                wrong.append(place(current, found))
            ours = module_behind(found.name)
            if ours is not None and ours not in executed:
                executed.add(ours)
                left.append(ours)
    assert wrong == [], f"import it inside the function that needs it ({module} is loaded by every verb)"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [name for name in sources() if drawers & set(name.split("."))] == []
