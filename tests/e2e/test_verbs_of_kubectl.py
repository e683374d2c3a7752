"""Verbs as kubectl's users type them: several kinds and names, directories, --dry-run, delete by labels, logs, forward.

All tests share the light lab. Each applies what it needs under names of its own and removes it again.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.e2e.manifests import deployment
from tests.waiting import wait_until

DEPLOYMENT = deployment("web", "echo", port=8080, replicas=2, labels="tier: front")
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: solo, labels: {app: solo, tier: front}}
spec: {containers: [{name: c, image: shell}]}
"""
OWN = "app in (web, solo)"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Make three manifests; the Service's name sorts first, and the Pod is in a subdirectory."""
    (tmp_path / "below").mkdir()
    for name, text in (("b.yaml", DEPLOYMENT), ("a.yml", SERVICE), ("below/c.yaml", POD), ("notes.txt", "no")):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def lab(two_nodes: Lab) -> Iterator[Lab]:
    yield two_nodes
    two_nodes.must("delete", "po,deploy,svc", "-l", "tier=front", "--grace-period", "0")


def lines_of(text: str) -> list[str]:
    """Return what was done, without the line about what to do next."""
    return text.partition("\nnext:")[0].splitlines()


def test_a_directory_is_applied_by_name_and_deleted_again(lab: Lab, directory: Path) -> None:
    applied = lab.must("apply", "-f", str(directory), "--wait")
    assert lines_of(applied) == ["service/web created", "deployment/web created"]
    again = lab.must("apply", "-R", "-f", str(directory), "--wait")
    assert lines_of(again) == ["service/web unchanged", "deployment/web unchanged", "pod/solo created"]
    deleted = lab.must("delete", "-R", "-f", str(directory))
    assert lines_of(deleted) == ["service/web deleted", "deployment/web deleted", "pod/solo deleted"]


def test_a_directory_s_mistakes_are_named_by_their_files_and_nothing_is_done(lab: Lab, directory: Path) -> None:
    (directory / "a.yml").write_text(SERVICE.replace("port: 80,", "port: eighty,"))
    (directory / "c.json").write_text("{}")
    answer = lab.testbed("apply", "-f", str(directory))
    assert answer.code == 2
    assert f"error: {directory}/a.yml:4:" in answer.err
    assert f"error: {directory}/c.json:1:1: " in answer.err
    assert lab.testbed("get", "deploy/web").code == 1


def test_a_dry_run_says_what_apply_would_do_and_does_nothing(lab: Lab, directory: Path) -> None:
    before = lab.json("get", "po,svc,deploy")
    said = lab.testbed("apply", "-R", "-f", str(directory), "--dry-run")
    assert said.code == 0
    assert said.err == ""
    assert lines_of(said.out) == [f"{one} created (dry run)" for one in ("service/web", "deployment/web", "pod/solo")]
    assert lab.json("get", "po,svc,deploy") == before
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    lab.must("scale", "deploy", "web", "--replicas", "3", "--wait")
    (directory / "below" / "c.yaml").write_text(POD.replace("name: c,", "name: other,"))
    pods = lab.must("get", "pods")
    for how in ("--dry-run=client", "--dry-run=server"):
        assert lines_of(lab.must("apply", "-R", "-f", str(directory), how)) == [
            "service/web unchanged (dry run)",
            "deployment/web configured (dry run)",
            "pod/solo configured (dry run)",
        ]
    assert lab.must("get", "pods") == pods
    kept = DEPLOYMENT.replace("  replicas: 2\n", "")
    answer = lab.testbed("apply", "-f", "-", "--dry-run", stdin=kept)
    assert lines_of(answer.out) == ["deployment/web unchanged (dry run)"], "without replicas it keeps what was scaled"


def test_a_dry_run_finds_what_apply_would_refuse(lab: Lab) -> None:
    answer = lab.testbed(
        "apply", "-f", "-", "--dry-run", stdin=f"{POD}  nodeName: node9\n".replace("spec: {", "spec:\n  ")
    )
    assert answer.code == 2
    taken = lab.testbed("apply", "-f", "-", "--dry-run", stdin=POD.replace("name: solo", "name: node1"))
    assert (taken.code, "metadata.name" in taken.err) == (2, True), str(taken)


def test_several_kinds_are_blocks_with_the_kind_in_the_names(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    pods, services, deployments = lab.must("get", "po,svc,deploy").split("\n\n")
    assert "\npod/solo " in pods
    assert "\nservice/web " in services
    assert "\ndeployment/web " in deployments
    only = lab.must("get", "po,svc,no", "-l", "app=solo")
    assert [line.split()[0] for line in only.splitlines()] == ["POD", "pod/solo"]
    assert lab.must("get", "svc,deploy", "-l", "app=none") == "no services, deployments\n"


def test_names_are_one_a_line_and_words_for_other_verbs(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    named = lab.must("get", "po,svc,deploy", "-l", "tier=front", "-o", "name").splitlines()
    assert named == ["pod/solo", "service/web", "deployment/web"]
    assert lab.must("get", *named, "-o", "name").splitlines() == named
    deleted = lab.must("delete", *named, "--grace-period", "0")
    assert sorted(deleted.splitlines()) == sorted(f"{one} deleted" for one in named)


def test_several_kinds_as_json_are_one_list_and_one_name_is_the_object(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    found = lab.json("get", "svc,deploy", "web")
    assert (found["kind"], [one["kind"] for one in found["items"]]) == ("List", ["Service", "Deployment"])
    assert lab.json("get", "svc", "web")["kind"] == "Service"
    assert [one["metadata"]["name"] for one in lab.json("get", "po/solo", "svc/web")["items"]] == ["solo", "web"]


def test_names_that_are_missing_are_named_beside_those_that_are_shown(lab: Lab) -> None:
    answer = lab.testbed("get", "pods", "shell1", "nowhere", "shell2", "nothing")
    assert answer.code == 1
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == ["shell1", "shell2"]
    wanted = [f"error: no pod named {name} (there are: " for name in ("nowhere", "nothing")]
    assert [line.partition("echo1")[0] for line in answer.err.splitlines()] == wanted


def test_a_name_that_cannot_be_looked_up_is_a_failure_of_etcd_and_not_a_missing_object(two_nodes: Lab) -> None:
    two_nodes.must("fault", "etcd", "stop", "etcd1")
    try:
        answer = two_nodes.testbed("get", "leases", "10.0.1.0-24", "10.0.2.0-24")
    finally:
        two_nodes.must("fault", "heal")
    assert (answer.code, answer.err) == (4, "error: etcd: etcd did not answer within 5 s\n")


def test_describe_shows_several_objects_and_without_a_name_all_of_a_kind(lab: Lab) -> None:
    both = lab.json("describe", "po/shell1", "no/node1")
    assert [one["Name"] for one in both] == ["shell1", "node1"]
    everything = lab.must("describe", "nodes")
    assert everything.index("node1") < everything.index("\n\n") < everything.rindex("node2")
    assert lab.must("describe", "svc") == "no services\n"


def test_delete_takes_labels_and_all_of_a_kind_but_not_neither(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    deleted = lab.must("delete", "po,deploy", "-l", "tier=front", "--grace-period", "0")
    assert sorted(deleted.splitlines()) == ["deployment/web deleted", "pod/solo deleted"]
    assert lab.must("delete", "svc", "--all") == "service/web deleted\n"
    assert lab.must("delete", "svc", "--all") == ""
    assert {"echo1", "echo2", "shell1", "shell2"} <= {one["name"] for one in lab.json("status")["pods"]}
    assert lab.testbed("delete", "svc").code == 2


def test_logs_of_several_pods_by_their_labels_with_where_each_line_is_from(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-R", "-f", str(directory), "--wait")
    pods = lab.must("get", "po", "-l", "app=web", "-o", "name").split()
    for pod in pods:
        lab.run(pod, "sh", "-c", f"for i in $(seq 12); do echo said by {pod} $i > /proc/1/fd/1; done")
        # What a container writes is in its log a moment later.
        wait_until(partial(has_logged, lab, pod, f"said by {pod} 12\n"), timeout_s=20, what=f"the log of {pod}")
    said = lab.must("logs", "-l", "app=web", "--prefix").splitlines()
    for pod in pods:
        own = [line for line in said if line.startswith(f"[{pod}/echo] ")]
        assert own == [f"[{pod}/echo] said by {pod} {number}" for number in range(3, 13)]
    assert len(said) == 20
    assert len(lab.must("logs", "-l", "app=web", "--tail", "1").splitlines()) == 2
    assert len(lab.must("logs", "-l", "app=web", "--tail=-1").splitlines()) >= 24
    refused = lab.testbed("logs", "-l", "app=nobody")
    assert (refused.code, "no pod has these labels (got app=nobody)" in refused.err) == (1, True)


def has_logged(lab: Lab, pod: str, line: str) -> bool:
    return line in lab.must("logs", pod)


def test_logs_of_several_pods_are_followed_at_once(lab: Lab, directory: Path) -> None:
    lab.must("apply", "-f", str(directory), "--wait")
    pods = lab.must("get", "po", "-l", "app=web", "-o", "name").split()
    tails = ("pgrep", "-f", "tail -q --lines=7 -F")
    with lab.running("logs", "-f", "-l", "app=web", "--prefix", "--tail", "7") as following:
        for turn in ("first", "second"):
            for pod in pods:
                lab.run(pod, "sh", "-c", f"echo {turn} > /proc/1/fd/1")
                read_until(following.stdout, rf"\[{pod}/echo\] {turn}")
        assert len(lab.run("node1", *tails).split()) >= 2
    wait_until(lambda: lab.exec("node1", *tails).code == 1, timeout_s=20, what="what followed has ended")


def test_logs_of_all_containers_begin_with_init_containers_and_of_the_run_before(lab: Lab) -> None:
    pod = """\
apiVersion: v1
kind: Pod
metadata: {name: several, labels: {tier: front}}
spec:
  initContainers: [{name: first, image: shell, command: [echo, prepared]}]
  containers:
    - {name: fails, image: shell, command: [sh, -c, "echo began as $$; sleep 0.3; echo cannot go on; exit 3"]}
    - {name: stays, image: shell, command: [sh, -c, "echo stays; sleep inf"]}
"""
    lab.must("apply", "-f", "-", stdin=pod)
    wait_until(lambda: lab.container("several", "fails")["restartCount"] >= 2, timeout_s=60, what="it fails twice")
    every = lab.must("logs", "several", "--all-containers", "--prefix").splitlines()
    assert every[0] == "[pod/several/first] prepared"
    assert every[-1] == "[pod/several/stays] stays"
    assert lab.must("logs", "several", "-c", "first") == "prepared\n"
    assert [line.split()[0] for line in lab.must("logs", "several", "-p").splitlines()] == ["began", "cannot"]
    refused = lab.testbed("logs", "-p", "several", "-c", "stays")
    assert refused.code == 1
    assert "no previous run is kept of stays (want: logs several, without --previous)" in refused.err
    for words in (
        ("several", "-c", "stays", "--all-containers"),
        ("several", "-p", "-f"),
        (),
        ("several", "-l", "a=b"),
    ):
        assert lab.testbed("logs", *words).code == 2
    assert lab.testbed("logs", "node1", "--previous").code == 2
