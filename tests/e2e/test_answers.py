"""What the lab says about itself: status, get, describe, events, logs, doctor, validate, and their other forms."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.command import ELSEWHERE, read_until, run_verb
from tests.e2e.lab import Lab
from tests.waiting import wait_until


def test_status_has_the_documented_fields(nginx_tomcat: Lab) -> None:
    status = nginx_tomcat.json("status")
    assert (status["lab"], status["state"]) == (nginx_tomcat.name, "ready")
    assert status["switch"] == "bridge"
    assert status["rundir"] == f"/run/testbed/{nginx_tomcat.name}"
    assert status["cluster_file"].endswith("nginx_tomcat.yaml")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", status["since"])
    assert status["services"] == [
        {
            "name": "nginx",
            "type": "NodePort",
            "cluster_ip": "10.96.0.80",
            "ports": [{"port": 80, "protocol": "TCP", "node_port": 30080}],
            "endpoints": 1,
        }
    ]
    (etcd,) = status["etcd"]
    assert etcd == {"name": "etcd1", "endpoint": "https://192.168.8.11:2379", "healthy": True}
    node = status["nodes"][0]
    assert {key: node[key] for key in ("name", "address", "subnet", "backend", "datapath", "peers")} == {
        "name": "node1",
        "address": "192.168.8.227",
        "subnet": "10.0.46.0/24",
        "backend": "udp",
        "datapath": "native",
        "peers": {"known": 1, "expected": 1},
    }
    assert set(node["agent"]) == {"state", "pid", "restarts"}
    assert {key for pod in status["pods"] for key in pod} == {"name", "node", "address", "state", "ready", "restarts"}


def test_pid_of_the_status_is_the_labs_first_process_as_the_host_sees_it(nginx_tomcat: Lab) -> None:
    pid = nginx_tomcat.json("status")["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    assert [line.split()[1:] for line in lines if line.startswith("NSpid:")] == [[str(pid), "1"]]


def test_up_ends_with_tables_and_the_next_commands_which_work_as_they_stand(no_lab: Lab) -> None:
    answer = no_lab.up("two_nodes")
    assert answer.code == 0
    for row in (r"NODE +ADDRESS +SUBNET +AGENT +PEERS", r"node1 +192\.168\.8\.\d+ +10\.0\.\d+\.0/24 +ready +1/1"):
        assert re.search(row, answer.out), answer
    for row in (r"POD +NODE +ADDRESS +STATE", r"echo2 +node2 +10\.0\.\d+\.2 +Running"):
        assert re.search(row, answer.out), answer
    for phase in ("underlay", "etcd", "agents", "pods", "forwarding"):
        assert re.search(rf"^{phase} +\d+\.\d+ s", answer.out, re.MULTILINE), answer
    lines = answer.out.partition("\nnext:\n")[2].splitlines()
    assert any(re.fullmatch(r"  export KUBECONFIG=\$\(sudo testbed kubeconfig.*\)", line) for line in lines)
    commands = [re.sub(r"^export KUBECONFIG=\$\((.*)\)$", r"\1", line.strip()) for line in lines]
    assert len(commands) >= 3
    assert answer.out.endswith(f"  {commands[-1]}\n")
    for command in commands:
        done = no_lab.testbed(*command.removeprefix("sudo testbed ").split())
        assert done.code == 0, done


@pytest.mark.parametrize("kind", ["nodes", "no", "pods", "po", "leases", "services", "svc", "all"])
def test_get_knows_every_kind_by_all_of_its_names(kind: str, nginx_tomcat: Lab) -> None:
    out = nginx_tomcat.must("get", kind)
    expected = {"n": "192.168.8.227", "p": "10.0.90.2", "l": "10.0.90.0/24", "s": "10.96.0.80", "a": "10.0.46.3"}
    assert expected[kind[0]] in out


def test_get_routes_shows_the_kernels_beside_the_agents(nginx_tomcat: Lab) -> None:
    out = nginx_tomcat.must("get", "routes", "node1")
    assert re.search(r"10\.0\.0\.0/16 .*flannel0", out)
    assert re.search(r"10\.0\.90\.0/24 +192\.168\.8\.228:8285", out)
    assert "node2" not in out


def test_get_wide_says_more(nginx_tomcat: Lab) -> None:
    assert "writer=shell" not in nginx_tomcat.must("get", "pods")
    assert "writer=shell" in nginx_tomcat.must("get", "pods", "-o", "wide")


def test_get_json_and_yaml_are_the_same_kubernetes_objects(nginx_tomcat: Lab) -> None:
    pod = nginx_tomcat.json("get", "pod", "nginx")
    assert yaml.safe_load(nginx_tomcat.must("get", "pod/nginx", "-o", "yaml")) == pod
    assert (pod["apiVersion"], pod["kind"], pod["metadata"]["labels"]) == ("v1", "Pod", {"app": "nginx"})
    assert pod["spec"]["shareProcessNamespace"] is True
    assert (pod["status"]["phase"], pod["status"]["podIP"]) == ("Running", "10.0.46.2")
    everything = nginx_tomcat.json("get", "pods")
    assert (everything["kind"], len(everything["items"])) == ("List", 3)


def test_get_takes_a_label(nginx_tomcat: Lab) -> None:
    assert [pod["metadata"]["name"] for pod in nginx_tomcat.json("get", "pods", "-l", "app=client")["items"]] == [
        "client"
    ]
    assert nginx_tomcat.must("get", "pods", "-l", "app=nothing").strip() == "no pods"


def test_get_watch_shows_a_change(two_nodes: Lab) -> None:
    with two_nodes.running("get", "pods", "-w") as watching:
        read_until(watching.stdout, r"echo1 .*Running")
        before = two_nodes.container("echo1", "echo")
        two_nodes.kill_9(before["pid"])
        read_until(watching.stdout, rf"echo1 .* {before['restartCount'] + 1}\n")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130


def test_describe_node_shows_device_bridge_lease_forwarding_and_drops(nginx_tomcat: Lab) -> None:
    nginx_tomcat.exec("client", "ping", "-c1", "-W1", "10.0.77.5")
    out = nginx_tomcat.must("describe", "node", "node1")
    assert "POINTOPOINT" in out
    assert re.search(r"--bip: +10\.0\.46\.1/24", out)
    assert "FLANNEL_SUBNET=10.0.46.1/24" in out
    assert re.search(r"seconds_left: +\d+", out)
    assert re.search(r"10\.0\.90\.0/24: +192\.168\.8\.228:8285", out)
    drops = nginx_tomcat.json("describe", "node", "node1")["Drops by reason"]
    assert sum(drops.values()) >= 1, "the ping to nobody's subnet was dropped and counted"
    for reason in drops:
        assert reason in out


def test_line_of_describe_that_enters_the_node_does_so(nginx_tomcat: Lab) -> None:
    (line,) = re.findall(r"^ *sudo (nsenter .*) bash$", nginx_tomcat.must("describe", "node", "node1"), re.MULTILINE)
    done = subprocess.run(
        [*line.split(), "ip", "-o", "-4", "address"], capture_output=True, text=True, cwd=ELSEWHERE, check=True
    )
    assert "192.168.8.227/24" in done.stdout


def test_describe_pod_shows_containers_and_events(nginx_tomcat: Lab) -> None:
    out = nginx_tomcat.must("describe", "pod", "nginx")
    for expected in (r"Address: +10\.0\.46\.2", r"writer:", r"image: +shell", r"started container writer"):
        assert re.search(expected, out), out


def test_events_tell_what_happened_in_order(nginx_tomcat: Lab) -> None:
    events = nginx_tomcat.handle.events()
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    started = {event["object"] for event in events if event["reason"] == "Started"}
    assert started == {"node/node1", "node/node2", "pod/nginx", "pod/client", "pod/tomcat"}


def test_logs_show_the_output_of_pods_agents_etcd_and_the_lab(nginx_tomcat: Lab) -> None:
    wait_until(lambda: "Server startup" in nginx_tomcat.must("logs", "tomcat"), timeout_s=60, what="tomcat has started")
    assert "ready" in nginx_tomcat.must("logs", "node1")
    assert "etcd" in nginx_tomcat.must("logs", "etcd1")
    assert "forwarding" in nginx_tomcat.must("logs", "lab")
    assert len(nginx_tomcat.must("logs", "etcd1", "--tail", "2").splitlines()) == 2


def test_logs_follow_shows_what_comes_until_ctrl_c(nginx_tomcat: Lab) -> None:
    with nginx_tomcat.running("logs", "-f", "tomcat") as following:
        read_until(following.stdout, "Server startup")
        nginx_tomcat.run("client", "curl", "-s", "http://10.0.90.2:8080/seen-while-following")
        read_until(following.stdout, "GET /seen-while-following")
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130


def test_etcdctl_is_the_real_one_and_changes_nothing_by_looking(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.must("etcdctl", "--", "version").startswith("etcdctl version: 3.")
    keys = nginx_tomcat.must("etcdctl", "--", "get", "--prefix", "/coreos.com/network", "--keys-only").split()
    assert keys == [
        "/coreos.com/network/config",
        "/coreos.com/network/subnets/10.0.46.0-24",
        "/coreos.com/network/subnets/10.0.90.0-24",
    ]


def test_doctor_finds_that_a_lab_can_run_here() -> None:
    answer = run_verb("doctor")
    assert answer.code == 0, answer
    assert answer.out.strip().endswith("a lab can run here")
    assert all(check["ok"] for check in run_verb("doctor", "-o", "json").json if not check["needed_for"]), answer


def test_validate_and_topologies_know_the_clusters_that_come_along() -> None:
    names = {row["name"] for row in run_verb("topologies", "-o", "json").json["clusters"]}
    assert {"nginx_tomcat", "two_nodes"} <= names
    for name in names:
        assert run_verb("validate", name).code == 0


def test_nothing_is_coloured_in_a_pipe_and_something_is_on_a_terminal(two_nodes: Lab) -> None:
    assert "\x1b[" not in two_nodes.must("status")
    with two_nodes.terminal("status") as screen:
        assert screen.end() == 0
        assert "\x1b[" in screen.seen


def test_another_python_finds_the_clones_own() -> None:
    clone = Path(__file__).parents[2]
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "testbed", "--version"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "testbed")
