"""Patches of objects; the strategic ones as Kubernetes' documentation and client show them."""

from typing import Any

import pytest

from testbed.api.failure import Failure
from testbed.api.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, patched

POD: dict[str, Any] = {
    "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
    "spec": {
        "containers": [
            {"name": "one", "image": "nginx", "ports": [{"containerPort": 80, "name": "http"}]},
            {"name": "two", "image": "redis", "args": ["--a", "--b"]},
        ]
    },
}


def _containers(patch: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = patched(POD, STRATEGIC_PATCH, patch)["spec"]["containers"]
    return found


def test_a_merge_patch_merges_mappings_removes_by_null_and_replaces_lists() -> None:
    patch = {"metadata": {"labels": {"tier": None, "new": "x"}}, "spec": {"containers": [{"name": "three"}]}}
    found = patched(POD, MERGE_PATCH, patch)
    assert found["metadata"] == {"name": "web", "labels": {"app": "web", "new": "x"}}
    assert found["spec"]["containers"] == [{"name": "three"}]
    assert POD["metadata"]["labels"]["tier"] == "front", "the object itself was changed"


def test_a_json_patch_does_each_operation_or_says_which_does_not_fit() -> None:
    patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "httpd"}]
    assert patched(POD, JSON_PATCH, patch)["spec"]["containers"][0]["image"] == "httpd"
    with pytest.raises(Failure, match="test failed"):
        patched(POD, JSON_PATCH, [{"op": "test", "path": "/metadata/name", "value": "other"}])
    with pytest.raises(Failure, match="does not fit"):
        patched(POD, JSON_PATCH, [{"op": "remove", "path": "/spec/nothing/here"}])
    with pytest.raises(Failure, match="list of operations"):
        patched(POD, JSON_PATCH, {"op": "remove"})


def test_a_strategic_patch_merges_containers_by_name_and_their_ports_by_number() -> None:
    patch = {"spec": {"containers": [{"name": "one", "image": "httpd", "ports": [{"containerPort": 81}]}]}}
    one, two = _containers(patch)
    assert one["image"] == "httpd"
    assert one["ports"] == [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]
    assert two == POD["spec"]["containers"][1]


def test_a_strategic_patch_replaces_a_list_without_a_merge_key() -> None:
    assert _containers({"spec": {"containers": [{"name": "two", "args": ["--c"]}]}})[1]["args"] == ["--c"]


def test_a_strategic_patch_deletes_an_item_and_sets_the_order() -> None:
    left = _containers({"spec": {"containers": [{"$patch": "delete", "name": "one"}]}})
    assert [one["name"] for one in left] == ["two"]
    order = {"$setElementOrder/containers": [{"name": "two"}, {"name": "three"}, {"name": "one"}]}
    added = _containers({"spec": {**order, "containers": [{"name": "three", "image": "x"}]}})
    assert [one["name"] for one in added] == ["two", "three", "one"]


UDP, TCP = ({"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP")))
METRICS = {"name": "metrics", "port": 9153}


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        ([METRICS], [UDP, TCP, METRICS]),
        ([{"port": 53, "targetPort": 5353}], [{**UDP, "targetPort": 5353}, TCP]),
        ([METRICS, {"port": 9153, "targetPort": 1}], [UDP, TCP, {**METRICS, "targetPort": 1}]),
        ([METRICS, {"$patch": "delete", "port": 53}], [METRICS]),
        ([{**UDP, "targetPort": 1}, {"$patch": "delete", "port": 53}], [{**UDP, "targetPort": 1}]),
    ],
)
@pytest.mark.parametrize("order", [{}, {"$setElementOrder/ports": [{"port": 53}, {"port": 53}, {"port": 9153}]}])
def test_a_strategic_patch_keeps_every_item_of_one_merge_key_and_changes_the_first(
    patch: object, left: object, order: dict[str, Any]
) -> None:
    service = {"spec": {"ports": [UDP, TCP]}}
    assert patched(service, STRATEGIC_PATCH, {"spec": {**order, "ports": patch}}) == {"spec": {"ports": left}}
    assert service == {"spec": {"ports": [UDP, TCP]}}, "the object itself was changed"


def test_a_strategic_patch_replaces_what_it_is_told_to_replace() -> None:
    whole = _containers({"spec": {"containers": [{"$patch": "replace"}, {"name": "new", "image": "x"}]}})
    assert whole == [{"name": "new", "image": "x"}]
    kept = patched(POD, STRATEGIC_PATCH, {"metadata": {"labels": {"$patch": "replace", "only": "me"}}})
    assert kept["metadata"]["labels"] == {"only": "me"}


def test_another_kind_of_patch_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Failure, match="want application/json-patch") as caught:
        patched(POD, "application/apply-patch+yaml", {})
    assert caught.value.code == 415
