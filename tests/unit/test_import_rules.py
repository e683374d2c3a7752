"""Who may import whom, and how large a module may grow. docs/architecture.md has the picture; the reasons stand here.

Imports are read from the source, at module level and inside functions, so that an import which only one verb
executes is seen too.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
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
        "_cffi_backend": "the same; the part of cffi that its generated module needs",
    },
    "testbed": {
        "testbed": "itself",
        "mininet": "the underlay",
        "agent.config": "the cluster file holds flannel's own network config and is checked like it",
        "agent.backend_options": "the same",
        "agent.lease": "shows leases and waits for them",
        "agent.errors": "what the modules beside raise",
        "agent.netlink": "one way to change the kernel",
        "agent.netlink_values": "its links and routes",
        "agent.netlink_lookup": "asks which route and which bridge port a traced packet took",
        "agent.datapath.packet": "traces and captures read IPv4 headers and checksums as the data path does",
        "agent.netlink_monitor": "notices when somebody changes a node's links",
        "agent.options": "flags for our agent in a cluster file are checked like its own",
        "agent.flags": "`testbed join` takes the agent's own flags",
        "agent.preconditions": "it checks a machine as the agent does, and says all of it at once",
        "agent.wiring": "the same",
        "agent.tolerant_journal": "the same",
        "agent.registry": "`testbed machines` lists leases where there is no lab",
        "agent.journal": "one journal of kernel changes for the lab and its agents",
        "agent.port_holder": "names who has the overlay's port, as an agent does that cannot have it",
        "agent.nftables_generation": "watches tables as the agent does",
        "agent.warm_parent": "containers' shims are forked from a warm process as agents are",
        "agent.subnet_env": "pins a subnet by flannel's own file, and reads what the agent wrote there",
        "cryptography": "the lab's certificate authority",
        "click": "the command line",
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
    "etcd3": ("agent.etcd_*", "its errors are translated in one place, and another store replaces only these"),
    "grpc": ("agent.etcd_*", "the same"),
    "pyroute2": ("agent.netlink_library", "every kernel change goes through one journal; all of it costs 0.2 s"),
    "cffi": ("agent.datapath.native*", "without a compiler the Python pump must still work"),
    "matplotlib": ("testbed.bench.plot*", "half a second to import, and wanted for --plot alone"),
    "pytest": ("testbed.pytest_plugin", "a lab runs without pytest"),
}

MUST_NOT = {  # modules: {import: why}
    "agent.backends.*": {
        "agent.subnet_manager": "backends take leases as values; only agent.__main__ joins them",
        "agent.registry": "the data path never waits for etcd",
        "agent.etcd_client": "the same",
        "agent.etcd_connection": "the same",
    },
    "agent.subnet_manager": {
        "agent.backends": "policy over leases knows no way of carrying packets",
        "agent.datapath": "the same",
        "agent.netlink": "the same",
    },
    "agent.datapath.*": {
        "agent.subnet_manager": "the data path never waits for the control plane",
        "agent.registry": "the same",
        "agent.etcd_client": "the same",
        "agent.etcd_connection": "the same",
        "agent.backends.udp": "a backend drives the data path, not the other way round",
    },
    "agent.registry": {"agent.backends": "below it", "agent.subnet_manager": "below it", "agent.datapath": "beside it"},
    "agent.etcd_*": {"agent.backends": "below it", "agent.subnet_manager": "below it", "agent.datapath": "beside it"},
    "agent.netlink*": {"agent.backends": "below it", "agent.subnet_manager": "below it", "agent.registry": "beside it"},
    "agent.firewall": {"agent.backends": "below it", "agent.subnet_manager": "below it", "agent.registry": "beside it"},
    "agent.errors": {"agent": "the bottom"},
}

PURE = (  # decide in values: no sockets, no processes, no clock of their own
    "agent.allocator",
    "agent.config",
    "agent.config_fields",
    "agent.errors",
    "agent.lease",
    "agent.datapath.forwarder",
    "agent.datapath.forwarding_table",
    "agent.datapath.packet",
    "testbed.bench.plan",
    "testbed.bench.results",
    "testbed.bench.scale_plan",
    "testbed.pods.probe_state",
    "testbed.workloads.placement",
    "testbed.workloads.reconcile",
)
IMPURE = ("socket", "subprocess", "threading", "time", "select", "fcntl", "http", "urllib.request")

LIGHT = ("testbed.__main__", "testbed.command.client")
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

MODULE_LINES = 400
FUNCTION_LINES = 60


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `from a import b` is a.b."""

    name: str
    line: int
    at_start: bool
    """Whether importing the module executes it."""


def within(name: str, package: str) -> bool:
    """Whether a dotted name is `package` or lies inside it."""
    return name == package or name.startswith(package + ".")


def is_type_checking(test: ast.expr) -> bool:
    """Whether this is the condition of `if TYPE_CHECKING`, whose body never runs."""
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_below(node: ast.AST, package: str, at_start: bool) -> Iterator[Import]:
    """Every import below `node`; `package` is what a leading dot means."""
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
    """Every module of ours by its dotted name."""
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
    """Every import of a module of ours, in order."""
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    return tuple(imports_below(tree_of(module), package, at_start=True))


def modules_in(*patterns: str) -> list[str]:
    return sorted(name for name in sources() if any(fnmatchcase(name, pattern) for pattern in patterns))


def module_behind(name: str) -> str | None:
    """The module of ours that an imported name belongs to; None for others'."""
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
        if not fnmatchcase(module, where)
        for found in imports_of(module)
        if within(found.name, imported)
    ]
    assert wrong == [], f"only {where} may import {imported}: {why}"


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


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_functions_stay_readable(package: str) -> None:
    wrong = []
    for module in modules_in(package, f"{package}.*"):
        path = sources()[module].relative_to(ROOT)
        lines = len(sources()[module].read_text(encoding="utf-8").splitlines())
        wrong += [f"{path} has {lines} lines"] if lines > MODULE_LINES else []
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                wrong += [f"{path}:{node.lineno} {node.name} has {length} lines"] if length > FUNCTION_LINES else []
    assert wrong == [], f"at most {MODULE_LINES} lines per module, {FUNCTION_LINES} per function"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [name for name in sources() if drawers & set(name.split("."))] == []
