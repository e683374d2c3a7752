"""Topologies are plain Mininet Topo classes; as wirings they say who reaches whom, and which cables are spare."""

import random
import runpy
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.foreign_topology import with_fitting_names
from testbed.cluster.generated import choose, generate
from testbed.cluster.name_rules import check_node_name, check_switch_name
from testbed.cluster.problems import SpecError
from testbed.cluster.topology import (
    DescribedTopology,
    TooManyParts,
    build,
    describe_topologies,
    known_topologies,
    topology_class,
    wiring_of,
)
from testbed.cluster.wiring import Cable, Shaping, Wiring
from testbed.places import TOPOLOGIES

USERS_FILE = """\
from mininet.topo import Topo

class LinuxRouter:
    "As in Mininet's examples; never made here."

class Rack(Topo):
    def build(self, racks=2, speed=10):
        core = self.addHost("r1", cls=LinuxRouter, ip="10.0.0.1/24")
        for rack in range(1, racks + 1):
            switch = self.addSwitch(f"s{rack}")
            self.addLink(core, switch, params1={"ip": f"10.0.{rack}.1/24"})
            self.addLink(self.addHost(f"h{rack}", ip=f"10.0.{rack}.2/24"), switch, bw=speed, delay="5ms", use_htb=True)

topos = {"rack": Rack}
"""


def run_as_mn_does(name: str) -> dict[str, Any]:
    """Run a custom file as Mininet does, and return its `topos`."""
    topos: dict[str, Any] = runpy.run_path(str(TOPOLOGIES / f"{name}.py"))["topos"]
    return topos


def wiring(name: str, **parameters: int) -> Wiring:
    return build(topology_class(name), parameters)


def refusal(topo: str | None, nodes: int | None = None, pods_per_node: int = 0) -> str:
    """Return the one line that `up --topo` answers with."""
    with pytest.raises(SpecError) as caught:
        generate(choose(topo, nodes), pods_per_node)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    file = tmp_path / "rack.py"
    file.write_text(USERS_FILE)
    return file


@pytest.mark.parametrize("name", known_topologies())
def test_a_topology_is_in_topos_under_its_file_s_name(name: str) -> None:
    assert name in run_as_mn_does(name)


@pytest.mark.parametrize("name", known_topologies())
def test_a_topology_can_be_built_as_mn_does_with_its_defaults(name: str) -> None:
    found = wiring_of(run_as_mn_does(name)[name]())
    assert found.nodes
    assert len(found.islands()) == 1


@pytest.mark.parametrize("shape", describe_topologies(), ids=lambda shape: shape.name)
def test_every_parameter_is_explained(shape: DescribedTopology) -> None:
    assert shape.description
    assert [one.name for one in shape.parameters if not one.meaning] == []


def test_single_puts_every_node_on_one_switch() -> None:
    topology = run_as_mn_does("single")["single"](3)
    assert topology.hosts() == ["node1", "node2", "node3"]
    assert topology.switches() == ["s1"]
    assert sorted(topology.links()) == [("node1", "s1"), ("node2", "s1"), ("node3", "s1")]


@pytest.mark.parametrize("name", known_topologies())
def test_every_host_s_first_port_is_its_own_link(name: str) -> None:
    """So that the interface is called NAME-eth0."""
    topology = run_as_mn_does(name)[name]()
    for host in topology.hosts():
        assert min(topology.ports[host]) == 0


def test_hosts_keep_their_order_beyond_nine() -> None:
    assert wiring("single", nodes=12).nodes == tuple(f"node{number + 1}" for number in range(12))


def test_clusters_and_topologies_are_shipped_side_by_side() -> None:
    assert {path.stem for path in Path(TOPOLOGIES).glob("*.yaml")} >= {"nginx_tomcat", "two_nodes"}


@pytest.mark.parametrize(
    ("name", "parameters", "nodes", "switches", "cables"),
    [
        ("linear", {"switches": 3, "hosts": 2}, 6, 3, 8),
        ("tree", {"depth": 2, "fanout": 3}, 9, 4, 12),
        ("tree", {"depth": 1, "fanout": 1}, 1, 1, 1),
        ("tree", {"depth": 3, "fanout": 2}, 8, 7, 14),
        ("leaf_spine", {"spines": 2, "leaves": 3, "hosts": 2}, 6, 5, 12),
        ("wan", {"sites": 3, "hosts": 2}, 6, 3, 9),
    ],
)
def test_a_topology_has_as_many_parts_as_asked(
    name: str, parameters: dict[str, int], nodes: int, switches: int, cables: int
) -> None:
    found = wiring(name, **parameters)
    assert (len(found.nodes), len(found.switches), len(found.cables)) == (nodes, switches, cables)


def test_nodes_of_a_topology_without_routers_are_in_one_segment() -> None:
    for name in ("single", "linear", "tree", "leaf_spine"):
        assert wiring(name).segment_count == 1


# Routers


def test_each_site_of_a_wan_is_a_segment_and_the_router_has_a_port_in_each() -> None:
    found = wiring("wan", sites=3, hosts=1)
    assert found.routers == ("r1",)
    assert found.ports == {"node1": (0,), "node2": (1,), "node3": (2,), "r1": (0, 1, 2)}
    assert found.next_routers([1]) == {0: (1, "r1"), 2: (1, "r1")}


def test_the_path_through_several_routers_is_the_one_with_the_fewest() -> None:
    """s1 r1 s2 r2 s3, and r3 from s1 to s3 directly over a cable to r2."""
    ends = [("r1", "s1"), ("r1", "s2"), ("r2", "s2"), ("r2", "s3"), ("r3", "s1"), ("r3", "r2"), ("a", "s1")]
    found = Wiring(("a",), ("s1", "s2", "s3"), tuple(Cable(*pair) for pair in ends), ("r1", "r2", "r3"))
    assert found.segment_count == 4
    assert found.next_routers([0])[1] == (0, "r1")
    assert found.next_routers([0])[2][1] in ("r1", "r3")
    assert found.next_routers(found.ports["r1"], without="r1") == {2: (1, "r2"), 3: (0, "r3")}


# Loops


def test_spare_uplinks_of_leaf_spine_are_those_that_spanning_tree_blocks() -> None:
    """Root spine1: every leaf's cable to it is in the tree, and spine2 hangs on the first leaf."""
    found = wiring("leaf_spine", spines=2, leaves=3, hosts=1)
    assert {str(found.cables[number]) for number in found.spare} == {"spine2 - leaf2", "spine2 - leaf3"}
    assert found.priorities["spine1"] == 0


def test_a_tree_has_no_spare_cable_and_a_doubled_one_is_spare() -> None:
    assert wiring("tree", depth=3, fanout=2).spare == frozenset()
    twice = Wiring(("a",), ("s1", "s2"), (Cable("s1", "s2"), Cable("s1", "s2"), Cable("a", "s1")))
    assert twice.spare == {1}


# Bad parameters


@pytest.mark.parametrize(
    ("topo", "what"),
    [
        ("tre", 'no such topology (got tre; want leaf_spine, linear, single, tree, wan) - did you mean "tree"?'),
        ("", "no such topology (got ''; want leaf_spine, linear, single, tree, wan)"),
        ("tree,dept=2", 'unknown parameter of tree (got dept; want depth, fanout) - did you mean "depth"?'),
        ("tree,depth=x", "depth: wrong type (got x; want a whole number)"),
        ("tree,depth=2.5", "depth: wrong type (got 2.5; want a whole number)"),
        ("tree,depth=", "depth: wrong type (got nothing; want a whole number)"),
        ("tree,1,2,3", "not a parameter of tree (got 3; want depth, fanout)"),
        ("tree,depth=1,2", "not a parameter of tree (got 2; want depth, fanout)"),
        ("tree,depth=2,depth=3", "a parameter twice (got depth; want it once)"),
        ("tree,depth=0", "depth and fanout start at 1 (got depth=0, fanout=2)"),
        ("linear,hosts=0", "switches and hosts start at 1 (got switches=2, hosts=0)"),
        ("leaf_spine,leaves=-1", "spines, leaves and hosts start at 1 (got spines=2, leaves=-1, hosts=2)"),
        ("wan,sites=201", "sites go from 1 to 200, hosts from 1 to 150 (got sites=201, hosts=2)"),
        ("tree,depth=3,fanout=8", "nodes: out of range (got 512; want 1 to 400)"),
        (
            "./none.py:Rack",
            "cannot be read (got No such file or directory; want a Python file with a Mininet topology)",
        ),
    ],
)
def test_a_wrong_topology_option_is_one_line(topo: str, what: str) -> None:
    assert refusal(topo) == f"error: --topo {topo}: {what}"


def test_nodes_and_topo_together_must_agree() -> None:
    assert len(choose("single", 5).wiring.nodes) == 5
    assert refusal("single,nodes=4", 3).endswith("two numbers of nodes (got nodes=4 and --nodes 3; want one)")
    assert "--nodes does not go with tree" in refusal("tree", 3)


def test_a_topology_without_end_is_stopped_while_it_grows() -> None:
    with pytest.raises(TooManyParts):
        choose("tree,depth=1000,fanout=1000", None)
    assert len(wiring("tree").nodes) == 4  # and the next one is not counted on top


# A user's own file


@pytest.mark.parametrize("chosen", ["{}:Rack", "{}:rack", "{},rack", "{}"])
def test_a_topology_of_a_user_s_file_becomes_links_of_the_cluster(users_file: Path, chosen: str) -> None:
    cluster = generate(choose(f"{chosen.format(users_file)},racks=3", None), 1)
    assert list(cluster.nodes) == ["h1", "h2", "h3"]
    assert cluster.wiring.routers == ("r1",)
    assert Cable("h2", "s2", Shaping(bandwidth=10.0, delay="5ms")) in cluster.wiring.cables
    assert [str(subnet) for subnet in cluster.addresses.subnets] == [f"192.168.{8 + site}.0/24" for site in range(3)]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (
            ("class Rack", "class Rick"),
            "the file fails when it is executed (got NameError: name 'Rack' is not defined;",
        ),
        (("def build", "def build("), "not Python (got "),
        (("bw=speed", "bw=-1"), "h1 - s1: bw: out of range (got -1; want Mbit/s above 0)"),
        (('"5ms"', '"5 m"'), "h1 - s1: delay: not a time (got 5 m; want a number and us, ms or s)"),
        (("use_htb=True", "colour=1"), "h1 - s1: a link option that the testbed does not support (got colour;"),
        (("cls=LinuxRouter", "cpu=0.5"), "r1: a host option that the testbed does not support (got cpu; want none)"),
        (('f"h{rack}"', '"h1"'), "a second link of a node (got h1 - s2, and h1 - s1 in line"),
        (("self.addLink(core", "self.addlink(core"), "cannot be built (AttributeError: "),
    ],
)
def test_a_mistake_in_a_user_s_file_is_one_line(users_file: Path, changed: tuple[str, str], what: str) -> None:
    users_file.write_text(USERS_FILE.replace(*changed))
    with pytest.raises(SpecError) as caught:
        generate(choose(f"{users_file}:Rack", None), 0)
    assert what in str(caught.value).splitlines()[0]


def test_everything_that_is_wrong_in_a_user_s_file_is_reported_at_once(users_file: Path) -> None:
    changes = {"bw=speed": "bw=-1", '"5ms"': '"5 m"', "use_htb=True": "colour=1", "cls=LinuxRouter": "cpu=0.5"}
    text = USERS_FILE
    for good, wrong in changes.items():
        text = text.replace(good, wrong)
    users_file.write_text(text)
    with pytest.raises(SpecError) as caught:
        choose(f"{users_file}:Rack", None)
    lines = str(caught.value).splitlines()
    for what in ("got cpu", "h1 - s1: bw:", "h1 - s1: delay:", "got colour", "h2 - s2: bw:"):
        assert any(what in line for line in lines), what
    assert all(line.startswith(f"error: --topo {users_file}:Rack: ") for line in lines)


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        *(("H{}", "h{}"), ("host-0-{}", "host-0-{}"), ("agg_{}", "agg-{}"), ("{}", "h{}"), ("Leaf.{}", "leaf-{}")),
        *(("aggregation_{}", "aggregat{}"), ("s{}", "hs{}"), ("h{}-eth0", "h{}eth0"), ("grün{}", "gr-n{}")),
    ],
)
def test_a_host_s_name_of_mininet_becomes_one_that_a_node_can_have(users_file: Path, name: str, becomes: str) -> None:
    host = repr(name).replace("{}", "{rack}")
    text = USERS_FILE.replace('f"s{rack}"', 'f"Sw_{rack}"').replace('f"h{rack}"', f"f{host}")
    users_file.write_text(text)
    choice = choose(f"{users_file}:Rack", None)
    cluster = generate(choice, 1)
    assert list(cluster.nodes) == [becomes.format(1), becomes.format(2)]
    assert cluster.wiring.switches == ("sw-1", "sw-2")
    assert [problem for problem in choice.warnings if "Sw_1" in problem.what]
    (renamed,) = (problem.what for problem in choice.warnings if "names that" in problem.what)
    assert (f", {name.format(1)}, " in renamed) == (name != becomes)


def test_two_names_that_would_become_one_stay_two(users_file: Path) -> None:
    users_file.write_text(USERS_FILE.replace('f"h{rack}"', '["h_1", "H-1"][rack - 1]'))
    assert choose(f"{users_file}:Rack", None).wiring.nodes == ("h-1", "h-2")


def test_whatever_names_a_topology_has_become_different_ones_that_fit() -> None:
    rng = random.Random(3)
    for _ in range(300):
        names = list({"".join(rng.choices("aA1-_. s0ü", k=rng.randint(1, 14))) for _ in range(12)})
        cables = tuple(Cable(name, names[0]) for name in names[1:])
        found, _ = with_fitting_names(Wiring(tuple(names[3:]), tuple(names[:2]), cables, tuple(names[2:3])))
        everything = [*found.nodes, *found.switches, *found.routers]
        assert len(set(everything)) == len(names)
        for node in found.nodes:
            check_node_name(node)
        for switch in (*found.switches, *found.routers):
            check_switch_name(switch)


def test_addresses_that_a_topology_gives_and_that_are_not_used_are_a_warning(users_file: Path) -> None:
    cluster = generate(choose(f"{users_file}:Rack", None), 0)
    (warning,) = cluster.warnings
    assert "ip of h1, ip of h2, ip of r1, ip of r1 on r1 - s1" in warning.what
    assert "the lab gives its own" in warning.what


LINUX_ROUTER = """\
from mininet.node import Node
from mininet.topo import Topo


class LinuxRouter(Node):
    pass


class T(Topo):
    def build(self, **_):
        r = self.addNode("r0", cls=LinuxRouter, ip="192.168.1.1/24")
        for number in (1, 2):
            s = self.addSwitch(f"s{number}")
            self.addLink(s, r, intfName2=f"r0-eth{number}", params2={"ip": f"192.168.{number}.1/24"})
            self.addLink(self.addHost(f"h{number}", ip="192.168.1.100/24", defaultRoute="via 192.168.1.1"), s)
"""


def test_the_linux_router_of_mininet_s_examples_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "linux-router.py"
    file.write_text(LINUX_ROUTER)
    cluster = generate(choose(str(file), None), 1)
    assert cluster.wiring.routers == ("r0",)
    addresses, interfaces = (problem.what for problem in cluster.warnings)
    assert "defaultRoute of h1" in addresses
    assert interfaces == (
        "names of interfaces that are not used (got r0-eth1, which is r0-eth0, r0-eth2, which is r0-eth1)"
    )


def test_an_unknown_class_of_a_user_s_file_suggests_the_right_one(users_file: Path) -> None:
    assert refusal(f"{users_file}:Rak").endswith('(got Rak; want Rack, rack) - did you mean "rack"?')


# Generated clusters


@pytest.mark.parametrize("topo", ["tree,depth=2,fanout=3", "leaf_spine,2,3,1", "wan,sites=3", "linear,3"])
def test_a_cluster_of_a_topology_can_be_read_again_from_its_text(topo: str) -> None:
    from testbed.cluster.spec import read_cluster

    cluster = generate(choose(topo, None), 2)
    assert len(cluster.pods) == 2 * len(cluster.nodes)
    assert read_cluster(cluster.text.encode(), "again") == cluster
