"""Tests of an overlay: how it carries packets, and what it does when something breaks."""

import pytest

pytestmark = pytest.mark.lab("cluster.yaml")


def test_a_pod_reaches_a_pod_on_another_node(lab):
    answers = lab.pods["answers"].address
    assert lab.ping("asks", "answers").lost == 0
    assert lab.curl("asks", f"http://{answers}:8080/hostname").body == "answers\n"


def test_an_agent_that_dies_comes_back_with_its_subnet(lab_per_test):
    lab = lab_per_test
    before = lab.nodes["left"]
    lab.agent("left").kill()
    lab.wait_until(lambda: lab.nodes["left"].agent_restarts > before.agent_restarts, 10, "a new agent")
    lab.wait_until(lambda: lab.ping("asks", "answers").lost == 0, 10, "asks reaches answers")
    assert lab.nodes["left"].subnet == before.subnet


def test_two_labs_do_not_meet(lab, new_lab):
    with new_lab("nodes: [left, right, third]\n") as other:
        assert {node.peers_known for node in other.nodes.values()} == {2}
        assert {node.peers_known for node in lab.nodes.values()} == {1}
