"""The example: nginx on one node is the proxy of tomcat on the other, through real agents."""

import re

from tests.e2e.lab import Lab
from tests.waiting import wait_until

TOMCATS_PAGE = "It works: this is Tomcat"


def test_pods_have_the_examples_addresses(nginx_tomcat: Lab) -> None:
    pods = {pod["name"]: (pod["node"], pod["address"]) for pod in nginx_tomcat.json("status")["pods"]}
    assert pods == {
        "nginx": ("node1", "10.0.46.2"),
        "client": ("node1", "10.0.46.3"),
        "tomcat": ("node2", "10.0.90.2"),
    }


def test_client_gets_tomcats_page_from_the_other_node(nginx_tomcat: Lab) -> None:
    assert TOMCATS_PAGE in nginx_tomcat.run("client", "curl", "-s", "http://10.0.90.2:8080/")


def test_nginx_container_gets_the_page_from_itself(nginx_tomcat: Lab) -> None:
    assert TOMCATS_PAGE in nginx_tomcat.run("nginx", "curl", "-s", "http://localhost/", container="nginx")


def test_client_gets_the_page_through_nginx_on_its_own_node(nginx_tomcat: Lab) -> None:
    assert TOMCATS_PAGE in nginx_tomcat.run("client", "curl", "-s", "http://10.0.46.2/")


def test_second_container_reaches_nginx_on_localhost(nginx_tomcat: Lab) -> None:
    assert TOMCATS_PAGE in nginx_tomcat.run("nginx", "curl", "-s", "http://localhost/", container="writer")
    assert TOMCATS_PAGE in nginx_tomcat.run("nginx", "curl", "-s", "http://127.0.0.1/", container="writer")


def test_tomcat_sees_nginx_own_address_so_there_is_no_nat(nginx_tomcat: Lab) -> None:
    nginx_tomcat.run("client", "curl", "-s", "http://10.0.46.2/who-asks-tomcat")
    logged = wait_until(
        lambda: re.search(r"(\S+) .*GET /who-asks-tomcat", nginx_tomcat.must("logs", "tomcat")),
        timeout_s=30,
        what="tomcat's access log has the request",
    )
    assert logged is not None
    assert logged[1] == "10.0.46.2"


def test_echo_sees_the_clients_own_address_and_answers_with_its_name(two_nodes: Lab) -> None:
    addresses = {pod["name"]: pod["address"] for pod in two_nodes.json("status")["pods"]}
    echo = f"http://{addresses['echo2']}:8080"
    assert two_nodes.run("shell1", "curl", "-s", f"{echo}/clientip").strip().startswith(addresses["shell1"])
    assert two_nodes.run("shell1", "curl", "-s", f"{echo}/hostname").strip() == "echo2"
    assert two_nodes.run("shell1", "curl", "-s", "-d", "to and fro", f"{echo}/echo").strip() == "to and fro"
