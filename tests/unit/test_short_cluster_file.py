"""A cluster file may be as short as its nodes; what it leaves out can be printed; `init` gives one to start from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from agent.backends import BACKENDS
from testbed.cluster.cluster_document import ClusterDocument
from testbed.cluster.deployment import Deployment
from testbed.cluster.difference import difference
from testbed.cluster.images import RECIPES
from testbed.cluster.kinds import MANIFESTS
from testbed.cluster.manifest import PodManifest
from testbed.cluster.problems import SpecError
from testbed.cluster.service import Service
from testbed.cluster.spec import Cluster, cluster_names, find_cluster, read_cluster
from testbed.cluster.starter import STARTER
from testbed.cluster.validation import EXAMPLES
from testbed.cluster.written_out import written_out
from testbed.command import cli
from testbed.command.command_line import verbs

assert cli  # registers the verbs

SHORT = "nodes: [a, b]\n"
LONG = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: lab}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
etcd: {members: 1}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes: {a: {}, b: {}}
"""


def read(text: str) -> Cluster:
    return read_cluster(text.encode(), "c.yaml")


def problems(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text)
    return str(caught.value)


def test_two_names_are_a_cluster() -> None:
    short, long = read(SHORT), read(LONG)
    assert short.network_json == long.network_json
    assert short.etcd.member_count == long.etcd.member_count
    for field in ("metadata", "underlay", "nodes", "agent", "addresses", "dns", "wiring"):
        assert getattr(short, field) == getattr(long, field)


def test_manifests_may_follow_the_short_form() -> None:
    spec = "{nodeName: b, containers: [{name: c, image: echo}]}"
    pod = f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n"
    assert [pod.spec.node_name for pod in read(SHORT + pod).pods] == ["b"]
    assert "spec.nodeName: no such node (got d; want a, b)" in problems(
        SHORT + pod.replace("nodeName: b", "nodeName: d")
    )


def test_a_wrong_name_in_the_list_is_found_where_it_stands() -> None:
    found = problems("nodes: [a, B, etcd1]\n")
    assert "error: c.yaml:1:12: nodes.B: not a node name (got B;" in found
    assert "error: c.yaml:1:15: nodes.etcd1: a name that the lab uses itself (got etcd1;" in found


def test_a_name_twice_in_the_list_is_a_problem() -> None:
    assert problems("nodes:\n- a\n- b\n- a\n") == (
        "error: c.yaml:4:3: nodes: a twice (got it at line 2 too; want each node once)"
    )


@pytest.mark.parametrize("nodes", ["[1, 2]", "[[a]]", "3", "a"])
def test_a_value_that_is_neither_names_nor_a_mapping_is_refused(nodes: str) -> None:
    assert re.fullmatch(
        r"error: c.yaml:1:8: nodes: wrong type \(got .*; want a mapping\)", problems(f"nodes: {nodes}\n")
    )


@pytest.mark.parametrize("nodes", ["[]", "{}"])
def test_no_node_is_too_few(nodes: str) -> None:
    assert problems(f"nodes: {nodes}\n") == "error: c.yaml:1:8: nodes: too few (got 0; want at least 1)"


@pytest.mark.parametrize("name", cluster_names())
def test_with_everything_written_out_it_is_the_same_cluster(name: str) -> None:
    cluster = find_cluster(name)
    again = read(written_out(cluster))
    assert again.addresses == cluster.addresses
    assert again.network_json == cluster.network_json
    assert again.wiring == cluster.wiring
    assert again.metadata == cluster.metadata
    assert again.pods == cluster.pods
    assert again.deployments == cluster.deployments
    assert again.services == cluster.services
    assert written_out(again) == written_out(cluster)


def test_links_that_a_file_lists_are_written_out_as_they_are() -> None:
    text = SHORT + "underlay: {switches: [s1], links: [{ends: [a, s1]}, {ends: [b, s1], bandwidth: 10}]}\n"
    assert read(written_out(read(text))).wiring == read(text).wiring


@pytest.mark.parametrize("agent", ["{args: [--ip-masq]}", "{command: [/opt/agent], ready: {file: /run/x}}"])
def test_an_agent_is_written_out(agent: str) -> None:
    text = f"{SHORT}agent: {agent}\n"
    assert read(written_out(read(text))).agent == read(text).agent


def test_the_defaults_are_those_that_the_reference_names() -> None:
    document = next(yaml.safe_load_all(written_out(read(SHORT))))
    assert document["network"] == {"Network": "10.0.0.0/16", "SubnetLen": 24, "Backend": {"Type": "udp"}}
    assert document["underlay"]["cidr"] == "192.168.8.0/24"
    assert document["etcd"] == {"members": 1, "tls": True, "program": "etcd"}
    assert document["nodes"]["b"]["ip"] == "192.168.8.102"


def test_the_starter_file_is_a_cluster() -> None:
    cluster = read(STARTER)
    assert (list(cluster.nodes), cluster.pod_count) == (["node1", "node2"], 3)


def test_the_starter_file_names_every_kind_image_and_backend() -> None:
    comments = " ".join(re.findall(r"(?m)^# (.*)", STARTER))
    kinds, images, backends = (
        set(re.findall(r"[\w-]+", re.sub(r"\([^)]*\)", "", found[1])))
        for part in (r"Kinds: ([^.]*)\.", r"recipes of the testbed: ([^.]*)\.", r"Backends: ([a-z-]+(?:, [a-z-]+)*)")
        if (found := re.search(part, comments))
    )
    assert kinds == {name for _, name in MANIFESTS}
    assert images == set(RECIPES)
    assert backends == set(BACKENDS)


def test_every_example_in_the_starter_file_can_be_switched_on() -> None:
    switched_on = re.sub(r"(?m)^#:", "", STARTER.replace("nodes: [node1, node2]", "#"))
    assert switched_on.count("\n#:") == 0
    cluster = read(switched_on)
    assert cluster.metadata.name == "my-lab"
    assert cluster.etcd.member_count == 3
    assert cluster.network["Backend"] == {"Type": "vxlan"}
    assert str(cluster.nodes["node1"].ip) == "192.168.8.21"
    assert cluster.agent.args == ("--subnet-lease-ttl=60s",)


def required_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if field.is_required():
            yield field.alias or name
        for inner in models_in(field.annotation):
            yield from required_keys(inner)


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


@pytest.mark.parametrize("model", [ClusterDocument, PodManifest, Deployment, Service])
def test_a_key_that_must_be_there_has_an_example_for_the_message(model: type[BaseModel]) -> None:
    assert set(required_keys(model)) - set(EXAMPLES) == set()


def test_a_valid_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    (file := tmp_path / "mine.yaml").write_text("nodes: [a]\n")
    answer = CliRunner().invoke(verbs, ["validate", str(file)])
    assert (answer.exit_code, answer.output) == (0, f"{file} is valid: 1 node, 0 pods\n")


@pytest.mark.parametrize("name", cluster_names())
def test_written_out_it_changes_nothing_in_a_running_lab(name: str) -> None:
    cluster = find_cluster(name)
    found = difference(cluster, read(written_out(cluster)))
    assert (found.refused, list(found.lines())) == ((), [])


def test_an_address_other_than_the_planned_one_is_still_refused_in_a_running_lab() -> None:
    wanted = written_out(read(SHORT)).replace("192.168.8.102", "192.168.8.103")
    assert difference(read(SHORT), read(wanted)).refused == ("nodes.b.ip: the node is running",)
    other_gateway = written_out(read(SHORT)).replace("gateway: 192.168.8.10", "gateway: 192.168.8.9")
    assert len(difference(read(SHORT), read(other_gateway)).refused) == 1
    assert len(difference(read(SHORT), read(SHORT + "etcd: {members: 3}\n")).refused) == 1
