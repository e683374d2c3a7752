"""The cluster file: what is wrong in it is said at once and exactly, what is right becomes a whole cluster."""

import json
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.cluster.addresses import UnderlayFull, plan_addresses
from testbed.cluster.generated import choose, generate
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, cluster_names, find_cluster, find_cluster_file, load_cluster, read_cluster
from testbed.plain_files import MAX_BYTES

ERRORS = Path(__file__).parent / "errors"
VECTORS = Path(__file__).parent.parent / "vectors" / "real-flanneld"

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}}
"""


def pod(name: str, node: str | None = None) -> str:
    place = f"nodeName: {node}, " if node else ""
    spec = f"{{{place}containers: [{{name: c, image: shell}}]}}"
    return f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def problems_of(data: bytes | str, name: str = "c.yaml") -> str:
    """Return every problem of a file, one a line."""
    with pytest.raises(SpecError) as caught:
        read_cluster(data if isinstance(data, bytes) else data.encode(), name)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return f"{caught.value}\n"


ROWS_OF_FILES = {
    "B2": ("agent_flags_and_host_bits",),
    "B9": ("binary", "byte_order_mark", "empty", "not_utf8", "only_comments", "syntax", "tab", "utf16"),
    "B10": ("alias_bomb", "alias_in_itself", "deep", "python_tag"),
    "B11": ("unknown_keys", "wrong_types", "duplicate_key", "missing_keys", "network_typo"),
    "B12": ("duplicate_node", "duplicate_parts", "same_names", "ports", "links_names", "deployment"),
    "B13": ("node_names", "pod_names", "links_forms"),
    "B14": ("unknown_node", "links_ends", "links_parts"),
    "B15": ("ports", "probes_and_host_ports"),
    "B17": ("overlap",),
    "B18": ("mtu", "mtu_text"),
    "B19": ("links_forms",),
    "B22": ("network_missing", "network_values", "agent_flags_and_host_bits"),
    "B24": ("backend_type",),
}


def rows_of(file: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.row(row) for row, names in ROWS_OF_FILES.items() if file.stem in names]


WRONG_FILES = [pytest.param(file, marks=rows_of(file), id=file.stem) for file in sorted(ERRORS.glob("*.yaml"))]


def test_every_file_that_shows_a_row_is_there() -> None:
    named = {name for names in ROWS_OF_FILES.values() for name in names}
    assert named <= {file.stem for file in ERRORS.glob("*.yaml")}


@pytest.mark.parametrize("file", WRONG_FILES)
def test_a_wrong_file_is_refused_with_all_its_problems(file: Path) -> None:
    """The .txt beside each file holds the lines that a person sees."""
    before = time.monotonic()
    assert problems_of(file.read_bytes(), file.name) == file.with_suffix(".txt").read_text(encoding="utf-8")
    assert time.monotonic() - before < 10.0  # an alias bomb must not be expanded: that would take hours


@pytest.mark.row("B9")
def test_a_file_that_is_too_big_is_refused_unread() -> None:
    assert problems_of(b"a" * (MAX_BYTES + 1)).startswith("error: c.yaml:1:1: the file is too big (got 1000001 bytes;")


@pytest.mark.row("B9")
def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    with file.open("wb") as opened:
        opened.truncate(10 * 1024**3)
    with pytest.raises(SpecError, match="too big"):
        load_cluster(file)


@pytest.mark.row("B9")
def test_a_missing_file_or_a_directory_is_one_problem(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SpecError) as caught:
            load_cluster(path)
        assert str(caught.value) == f"error: {path}: cannot be read (got {reason}; want a readable cluster file)"


def test_an_unknown_topology_is_refused_with_the_nearest_one() -> None:
    problems = problems_of(CLUSTER.replace("{cidr:", "{topology: singel, cidr:"))
    assert problems.startswith("error: c.yaml:5:22: underlay.topology: no such topology (got singel; want ")
    assert problems.endswith(' - did you mean "single"?\n')


@pytest.mark.row("B10")
def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    problems_of(CLUSTER + f"agent: !!python/object/apply:os.mkdir ['{witness}']\n")
    assert not witness.exists()


# Names


@pytest.mark.parametrize("name", ["nginx_tomcat", "nginx-tomcat"])
def test_a_cluster_of_ours_is_found_by_its_name_in_both_spellings(name: str) -> None:
    assert find_cluster(name).name == "nginx-tomcat"


def test_the_default_cluster_is_nginx_and_tomcat() -> None:
    assert find_cluster_file().name == "nginx_tomcat.yaml"


def test_a_misspelt_cluster_name_suggests_the_right_one() -> None:
    with pytest.raises(SpecError, match=r'no such cluster \(got nginx-tomcta; want .*did you mean "nginx_tomcat"'):
        find_cluster("nginx-tomcta")


def test_a_path_is_taken_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text(CLUSTER)
    assert find_cluster(str(file)).name == "c"


@pytest.mark.parametrize("name", cluster_names())
def test_every_cluster_that_is_shipped_is_valid(name: str) -> None:
    cluster = find_cluster(name)
    assert cluster.name == name.replace("_", "-")
    # Deployments are spread when the lab runs.
    assert {pod.spec.node_name for pod in cluster.pods} == set(cluster.nodes) or cluster.deployments
    assert cluster.pod_count >= len(cluster.nodes)


# The network config


def test_the_config_for_etcd_is_byte_for_byte_what_flannel_users_write() -> None:
    vector = json.loads((VECTORS / "udp-etcd.json").read_text())
    cluster = find_cluster("nginx_tomcat")
    assert cluster.network_json == vector["/coreos.com/network/config"]["value"]
    assert cluster.network_json == '{"Network":"10.0.0.0/16","SubnetLen":24,"Backend":{"Type":"udp"}}'


def test_the_config_keeps_the_order_and_case_of_its_keys() -> None:
    text = CLUSTER.replace(
        "{Network: 10.0.0.0/16}", "{Backend: {Type: udp, Port: 9}, subnetlen: 24, Network: 10.0.0.0/16}"
    )
    written = read_cluster(text.encode(), "c").network_json
    assert written == '{"Backend":{"Type":"udp","Port":9},"subnetlen":24,"Network":"10.0.0.0/16"}'


# The example of the README


def test_the_default_cluster_pins_the_subnets_and_orders_the_pods() -> None:
    cluster = find_cluster()
    pinned = {name: (str(node.ip), str(node.subnet)) for name, node in cluster.nodes.items()}
    assert pinned == {"node1": ("192.168.8.227", "10.0.46.0/24"), "node2": ("192.168.8.228", "10.0.90.0/24")}
    assert [(pod.name, pod.spec.node_name) for pod in cluster.pods] == [
        ("nginx", "node1"),
        ("client", "node1"),
        ("tomcat", "node2"),
    ]
    assert cluster.pods[0].spec.share_process_namespace
    assert [container.image for container in cluster.pods[0].spec.containers] == ["nginx", "shell"]


def test_two_nodes_has_an_echo_and_a_shell_on_each() -> None:
    placed = sorted((pod.spec.node_name, pod.spec.containers[0].image) for pod in find_cluster("two_nodes").pods)
    assert placed == [("node1", "echo"), ("node1", "shell"), ("node2", "echo"), ("node2", "shell")]


# Scheduling


def test_a_pod_without_a_node_goes_where_the_fewest_pods_are() -> None:
    cluster = read_cluster((CLUSTER + pod("a") + pod("b") + pod("c") + pod("d", "node1")).encode(), "c")
    assert [pod.spec.node_name for pod in cluster.pods] == ["node2", "node1", "node2", "node1"]


def test_ties_go_to_the_first_node_of_the_file() -> None:
    cluster = read_cluster((CLUSTER.replace("node1", "z") + pod("p") + pod("q") + pod("r")).encode(), "c.yaml")
    assert [one.spec.node_name for one in cluster.pods] == ["z", "node2", "z"]


def test_pods_with_one_host_port_go_to_different_nodes_and_no_further() -> None:
    wanted = "spec: {containers: [{name: c, image: echo, ports: [{containerPort: 8080, hostPort: 80}]}]}"
    pods = [f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n{wanted}\n" for name in "abc"]
    cluster = read_cluster((CLUSTER + pods[0] + pods[1]).encode(), "c.yaml")
    assert [one.spec.node_name for one in cluster.pods] == ["node1", "node2"]
    problem = problems_of(CLUSTER + "".join(pods))
    assert "spec: no node takes this pod (got node1 has host port 80/TCP taken; node2 has host port 80/TCP" in problem


# The underlay's addresses


def test_open_addresses_are_the_documented_ones() -> None:
    plan = plan_addresses(IPv4Network("192.168.8.0/24"), None, 3, {"a": None, "b": None})
    assert str(plan.gateway) == "192.168.8.10"
    assert {name: str(address) for name, address in plan.etcd.items()} == {
        "etcd1": "192.168.8.11",
        "etcd2": "192.168.8.12",
        "etcd3": "192.168.8.13",
    }
    assert {name: str(address) for name, address in plan.nodes.items()} == {"a": "192.168.8.101", "b": "192.168.8.102"}


def test_given_addresses_are_kept_and_never_given_twice() -> None:
    given = {"a": None, "b": IPv4Address("192.168.8.101"), "c": None}
    plan = plan_addresses(IPv4Network("192.168.8.0/24"), IPv4Address("192.168.8.11"), 1, given)
    assert [str(address) for address in plan.nodes.values()] == ["192.168.8.102", "192.168.8.101", "192.168.8.103"]
    assert [str(address) for address in plan.etcd.values()] == ["192.168.8.12"]


@pytest.mark.parametrize(("network", "nodes"), [("10.9.0.0/24", 250), ("10.9.0.0/25", 122), ("10.9.0.0/28", 10)])
def test_a_range_is_used_to_its_last_address(network: str, nodes: int) -> None:
    plan = plan_addresses(IPv4Network(network), None, 3, dict.fromkeys(map(str, range(nodes))))
    everybody = [plan.gateway, *plan.etcd.values(), *plan.nodes.values()]
    assert len(set(everybody)) == nodes + 4
    assert set(everybody) == set(IPv4Network(network).hosts()) or nodes == 250
    with pytest.raises(UnderlayFull):
        plan_addresses(IPv4Network(network), None, 3, dict.fromkeys(map(str, range(nodes + 1))))


# Agents


def test_a_node_has_its_own_agent_or_the_cluster_s() -> None:
    text = CLUSTER.replace("node2: {}", "node2: {agent: {command: [/opt/flanneld], ready: {file: /run/x}}}")
    cluster: Cluster = read_cluster((text + "agent: {args: [--subnet-lease-ttl=5s]}\n").encode(), "c")
    assert (cluster.nodes["node1"].agent or cluster.agent).args == ("--subnet-lease-ttl=5s",)
    assert (cluster.nodes["node2"].agent or cluster.agent).command == ("/opt/flanneld",)


# Generated clusters


def test_a_generated_cluster_has_the_asked_nodes_and_pods() -> None:
    cluster = generate(choose(None, 3), pods_per_node=2)
    assert list(cluster.nodes) == ["node1", "node2", "node3"]
    assert [pod.name for pod in cluster.pods] == ["pod1", "pod2", "pod3", "pod4", "pod5", "pod6"]
    assert [pod.spec.node_name for pod in cluster.pods] == ["node1", "node1", "node2", "node2", "node3", "node3"]


def test_a_generated_cluster_can_be_read_again_from_its_text() -> None:
    cluster = generate(choose(None, 2), pods_per_node=1)
    assert read_cluster(cluster.text.encode(), "again") == cluster


@pytest.mark.parametrize(("nodes", "pods"), [(0, 1), (401, 1), (1, -1), (1, 201), (201, 101), (100, 100)])
@pytest.mark.row("B20")
def test_an_impossible_number_is_refused(nodes: int, pods: int) -> None:
    with pytest.raises(SpecError, match="out of range"):
        generate(choose(None, nodes), pods)
