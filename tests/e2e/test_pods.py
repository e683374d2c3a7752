"""Pods: containers that share what Kubernetes' containers share, and what happens when parts of a pod die."""

import pytest

from tests.e2e.lab import Lab
from tests.waiting import wait_until

NGINX_FILES, WRITER_FILES = "/usr/share/nginx/html", "/html"


@pytest.mark.row("K3")
def test_file_of_one_container_is_read_by_the_other_both_ways(nginx_tomcat: Lab) -> None:
    nginx_tomcat.run("nginx", "sh", "-c", f"echo from nginx > {NGINX_FILES}/a", container="nginx")
    nginx_tomcat.run("nginx", "sh", "-c", f"echo from writer > {WRITER_FILES}/b", container="writer")
    assert nginx_tomcat.run("nginx", "cat", f"{WRITER_FILES}/a", container="writer") == "from nginx\n"
    assert nginx_tomcat.run("nginx", "cat", f"{NGINX_FILES}/b", container="nginx") == "from writer\n"


TAKE_PORT_80 = """
import socket
with socket.socket() as second:
    try:
        second.bind(("127.0.0.1", 80))
    except OSError as refusal:
        print(refusal.strerror)
    else:
        print("taken twice")
"""


@pytest.mark.row("K3")
def test_containers_of_one_pod_have_one_loopback_and_one_port_space(nginx_tomcat: Lab) -> None:
    ask = ("curl", "-s", "-m5", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", "http://localhost/now.txt")
    # Which of its two addresses curl takes first is curl's own affair.
    assert nginx_tomcat.run("nginx", *ask, container="writer") in ("200 127.0.0.1", "200 ::1")
    assert nginx_tomcat.run("nginx", "python3", "-c", TAKE_PORT_80, container="writer") == "Address already in use\n"
    assert nginx_tomcat.run("client", "python3", "-c", TAKE_PORT_80) == "taken twice\n", "another pod has its own ports"


def test_container_has_files_of_its_own_beside_the_volume(nginx_tomcat: Lab) -> None:
    nginx_tomcat.run("nginx", "touch", "/tmp/of-writer", container="writer")
    assert nginx_tomcat.exec("nginx", "ls", "/tmp/of-writer", container="nginx").code != 0


def test_pause_is_process_1_and_all_containers_processes_are_seen(nginx_tomcat: Lab) -> None:
    processes = nginx_tomcat.run("nginx", "ps", "-e", "-o", "pid=,args=", container="writer").splitlines()
    by_pid = dict(line.split(maxsplit=1) for line in processes)
    assert by_pid["1"].split()[0].endswith("/pause")
    assert any(args.startswith("nginx: master") for args in by_pid.values())
    assert any("date > /html/now.txt" in args for args in by_pid.values())


def test_container_is_process_1_of_its_own_where_processes_are_not_shared(nginx_tomcat: Lab) -> None:
    first = nginx_tomcat.run("tomcat", "ps", "-p", "1", "-o", "args=")
    assert "org.apache.catalina.startup.Bootstrap" in first


def test_pause_reaps_an_orphan(nginx_tomcat: Lab) -> None:
    """Its parent, the shell, has ended; whoever is process 1 has to collect it."""
    orphan = nginx_tomcat.run("nginx", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!", container="writer").strip()
    show = ("ps", "-p", orphan, "-o", "ppid=")
    assert nginx_tomcat.run("nginx", *show, container="writer").strip() == "1"
    nginx_tomcat.run("nginx", "kill", orphan, container="writer")
    wait_until(
        lambda: nginx_tomcat.exec("nginx", *show, container="writer").out == "",
        timeout_s=20,
        what="the orphan is gone, its zombie too",
    )


def test_pods_hostname_is_its_name_and_hosts_file_has_its_address(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.run("client", "hostname") == "client\n"
    assert "10.0.46.3" in nginx_tomcat.run("client", "getent", "hosts", "client")


def test_killed_container_restarts_and_keeps_its_address(nginx_tomcat: Lab) -> None:
    before = nginx_tomcat.container("client", "client")
    nginx_tomcat.kill_9(before["pid"])

    def restarted() -> bool:
        now = nginx_tomcat.container("client", "client")
        return bool(now["ready"]) and now["restartCount"] == before["restartCount"] + 1 and now["pid"] != before["pid"]

    wait_until(restarted, timeout_s=30, what="the container runs again, one restart more")
    pod = nginx_tomcat.pod("client")
    assert (pod["address"], pod["state"], pod["restarts"]) == ("10.0.46.3", "Running", before["restartCount"] + 1)
    assert nginx_tomcat.pings("client", "10.0.90.2")


def test_other_container_of_the_pod_lives_on_when_one_is_killed(nginx_tomcat: Lab) -> None:
    writer, nginx = (nginx_tomcat.container("nginx", name) for name in ("writer", "nginx"))
    nginx_tomcat.kill_9(writer["pid"])
    wait_until(
        lambda: (
            nginx_tomcat.container("nginx", "writer")["restartCount"] > writer["restartCount"]
            and nginx_tomcat.pod("nginx")["ready"]
        ),
        timeout_s=30,
        what="writer runs again",
    )
    assert nginx_tomcat.container("nginx", "nginx") == nginx


def test_killing_pause_ends_the_pod_cleanly_and_it_comes_back_with_its_address(own_lab: Lab) -> None:
    address = own_lab.pod("echo2")["address"]
    pause = own_lab.json("describe", "pod", "echo2")["Pause process"]
    former = own_lab.container("echo2", "echo")["pid"]
    own_lab.kill_9(pause)

    def is_back() -> bool:
        pod = own_lab.json("describe", "pod", "echo2")
        return bool(pod["Ready"]) and pod["Pause process"] != pause

    wait_until(is_back, timeout_s=40, what="the pod is back with a new pause process")
    assert own_lab.exec("node1", "kill", "-0", str(former)).code != 0, "the old container's process lives on"
    assert own_lab.pod("echo2")["address"] == address
    assert own_lab.run("shell1", "curl", "-s", f"http://{address}:8080/hostname").strip() == "echo2"
    ends_on_bridge = own_lab.run("node2", "ip", "-o", "link", "show", "master", "docker0").splitlines()
    assert len(ends_on_bridge) == 2, "one veth for each of the node's two pods"


def test_pause_ends_by_itself_on_sigterm_and_the_pod_comes_back(nginx_tomcat: Lab) -> None:
    pause = nginx_tomcat.json("describe", "pod", "nginx")["Pause process"]
    # Process 1 takes all others of its namespace along, this one too.
    nginx_tomcat.exec("nginx", "kill", "-TERM", "1", container="writer")

    def is_back() -> bool:
        pod = nginx_tomcat.json("describe", "pod", "nginx")
        return bool(pod["Ready"]) and pod["Pause process"] != pause

    wait_until(is_back, timeout_s=40, what="the pod is back with a new pause process")
    assert nginx_tomcat.pod("nginx")["address"] == "10.0.46.2"
    assert "Tomcat" in nginx_tomcat.run("client", "curl", "-s", "http://10.0.46.2/")
