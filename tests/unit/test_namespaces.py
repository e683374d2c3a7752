"""Namespaces as values: what a file may say, and two of equal names that keep apart."""

import pytest
from click.testing import CliRunner

from testbed.capture.headers import NO_OVERLAY
from testbed.capture.map import Map
from testbed.capture.verbs import split
from testbed.cluster.difference import difference
from testbed.cluster.manifests import read_manifests
from testbed.cluster.namespace import NAME_LABEL
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.cluster.validation import Source
from testbed.cluster.yaml_source import read_documents
from testbed.command import cli
from testbed.command.command_line import verbs
from testbed.errors import TestbedError
from testbed.lab.changes import Changes
from testbed.lab.namespaces import Namespaces

assert cli

HEAD = """
apiVersion: testbed/v1
kind: Cluster
metadata: {name: spaces}
network: {Network: 10.0.0.0/16}
nodes: {node1: {}, node2: {}}
"""
SHOP = """
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: sales}}
"""


def pod(name: str, namespace: str, app: str = "web") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}"
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {metadata}
spec: {{containers: [{{name: c, image: echo}}]}}
"""


def service(name: str, namespace: str, spec: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]{spec}}}
"""


def cluster(*documents: str) -> Cluster:
    return read_cluster("".join((HEAD, *documents)).encode(), "spaces.yaml")


def problems(*documents: str) -> list[str]:
    with pytest.raises(SpecError) as refused:
        cluster(*documents)
    return [one.what for one in refused.value.problems]


def test_a_namespace_of_the_same_file_may_stand_before_and_behind_its_objects() -> None:
    for documents in ((pod("web", "shop"), SHOP), (SHOP, pod("web", "shop"))):
        found = cluster(*documents)
        assert [one.key for one in found.pods] == [ObjectKey("shop", "web")]
        assert [dict(one.labels) for one in found.namespaces] == [{"team": "sales", NAME_LABEL: "shop"}]


def test_an_object_of_a_missing_namespace_is_refused_with_the_existing_ones() -> None:
    want = "want default, kube-system, shop; or a document of kind Namespace"
    assert problems(SHOP, pod("web", "shpo")) == [f"metadata.namespace: no such namespace (got shpo; {want})"]
    assert cluster(pod("web", "kube-system")).pods[0].key == ObjectKey("kube-system", "web")


def test_equal_names_in_two_namespaces_are_two_objects_and_in_one_a_mistake() -> None:
    found = cluster(SHOP, pod("web", "shop"), pod("web", "default"), service("web", "shop"), service("web", "default"))
    assert [str(one.key) for one in found.pods] == ["shop/web", "web"]
    assert [str(one.key) for one in found.services] == ["shop/web", "web"]
    (twice,) = problems(SHOP, pod("web", "shop"), pod("web", "shop"))
    assert "a pod name twice" in twice


def test_only_a_pod_of_the_default_namespace_may_not_be_called_as_a_node() -> None:
    assert [str(one.key) for one in cluster(SHOP, pod("node1", "shop")).pods] == ["shop/node1"]
    assert "a node has this name" in problems(pod("node1", "default"))[0]


def test_a_service_selects_no_pod_of_another_namespace() -> None:
    (warning,) = cluster(SHOP, pod("web", "default"), service("web", "shop")).warnings
    assert "no pod has these labels" in warning.what
    assert cluster(SHOP, pod("web", "shop"), service("web", "shop")).warnings == ()


def test_an_object_goes_into_the_namespace_of_the_command_line_unless_it_names_another() -> None:
    def read(text: str, namespace: str | None) -> tuple[list[str], list[str]]:
        documents, _ = read_documents(text.removeprefix("\n---").encode(), "f.yaml")
        manifests, found, _ = read_manifests([Source(one, "f.yaml") for one in documents], (), namespace)
        return [str(one.object.key) for one in manifests], [one.what for one in found]

    bare = pod("web", "shop").replace(", namespace: shop", "")
    assert read(bare, None) == (["web"], [])
    assert read(bare, "shop") == (["shop/web"], [])
    assert read(pod("web", "shop"), "shop") == (["shop/web"], [])
    assert read(SHOP, "bank") == (["shop"], [])
    (_, (problem,)) = read(pod("web", "shop"), "bank")
    assert problem.endswith("not the one of the command line (got shop; want bank, or -n shop)")


@pytest.mark.parametrize("words", [("pod", "web", "-A"), ("pod/web", "-A"), ("pods", "-n", "shop", "-A")])
def test_all_namespaces_are_asked_for_objects_of_a_kind_alone(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(verbs, ["get", *words])
    assert (done.exit_code, "-A shows all objects" in done.output) == (2, True), done.output


def test_a_node_port_is_taken_by_a_service_of_the_same_name_elsewhere() -> None:
    number = ", type: NodePort"
    both = [
        service("web", namespace, number).replace("port: 80}", "port: 80, nodePort: 30080}")
        for namespace in ("shop", "default")
    ]
    (twice,) = problems(SHOP, pod("web", "shop"), pod("web", "default"), *both)
    assert "a node port twice" in twice


def test_a_changed_file_names_objects_with_their_namespace() -> None:
    running = cluster(SHOP, pod("web", "shop"), pod("web", "default"))
    wanted = cluster(SHOP.replace("sales", "books"), pod("web", "shop", "other"), pod("web", "default"))
    assert list(difference(running, wanted).lines()) == ["~ pod shop/web", "~ namespace shop"]
    assert difference(running, cluster()).gone_objects == (
        ("Pod", "shop/web"),
        ("Pod", "web"),
        ("Namespace", "shop"),
    )


def test_a_lab_has_the_built_in_namespaces_and_those_of_its_file_with_labels() -> None:
    known = Namespaces(cluster(SHOP).namespaces, Changes())
    assert known.names == known.open == ("default", "kube-system", "shop")
    assert known.labels_of("default") == {NAME_LABEL: "default"}
    assert known.labels_of("shop") == {"team": "sales", NAME_LABEL: "shop"}
    assert known.labels_of("gone") == {NAME_LABEL: "gone"}


def test_a_namespace_that_is_being_deleted_is_there_and_takes_no_more_objects() -> None:
    known = Namespaces(cluster(SHOP).namespaces, Changes())
    known.begin_end("shop")
    known.begin_end("never there")
    assert (known.names, known.open) == (("default", "kube-system", "shop"), ("default", "kube-system"))
    assert known.ending == ("shop",)
    known.forget("shop")
    assert known.names == ("default", "kube-system")


def test_a_relabelled_namespace_keeps_its_age() -> None:
    known = Namespaces((), Changes())
    (shop,) = cluster(SHOP).namespaces
    (relabelled,) = cluster(SHOP.replace("sales", "books")).namespaces
    assert known.put(shop) is None
    before = known.get("shop")
    assert (known.put(relabelled), known.put(relabelled)) == (shop, relabelled)
    after = known.get("shop")
    assert before is not None
    assert after is not None
    assert (after.created_at, after.wanted.labels["team"]) == (before.created_at, "books")


def test_a_point_is_the_pod_of_the_namespace_or_a_machine_and_never_a_pod_of_another() -> None:
    places = ("node1", "web", "client", "shop/web", "bank/node1")
    known = Map(
        places=(),
        place_of={name: name for name in places},
        cables={},
        addresses={},
        overlay=NO_OVERLAY,
        overlay_device="flannel0",
        overlay_devices=frozenset({"flannel0"}),
        switch_ports={"s1-eth1": "s1"},
        machines=frozenset({"node1"}),
    )
    asked = [("web:eth0", "shop"), ("node1", "shop"), ("node1", "bank"), ("web", "default"), ("shop/web", "bank")]
    found = [split([word, "udp"], known, namespace)[0] for word, namespace in asked]
    assert found == [["shop/web:eth0"], ["node1"], ["bank/node1"], ["web"], ["shop/web"]]
    assert split(["web", "host", "client"], known, "shop") == (["shop/web"], "host client")
    assert split(["s1:s1-eth1", "udp"], known, "shop") == (["s1:s1-eth1"], "udp")
    with pytest.raises(TestbedError, match="no such point"):
        split(["client"], known, "shop")
