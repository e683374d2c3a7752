"""Recipes: command, args and env as in Kubernetes; private config for each program."""

import shutil
import subprocess
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.images import RECIPES, Program, RecipeError, expand, find_java, program
from testbed.cluster.manifest import Container
from testbed.pods.echo_server import answer


def of(image: str, **fields: Any) -> Program:  # noqa: ANN401 - any manifest field
    return program(Container.model_validate({"name": "c", "image": image, **fields}))


def variables(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


@pytest.mark.parametrize("image", RECIPES)
def test_every_recipe_makes_an_absolute_program_with_absolute_files(image: str) -> None:
    made = of(image)
    assert made.argv[0].startswith("/")
    assert all(path.startswith("/") for path in (*made.files, *made.directories, made.working_dir))
    inside = (*made.files, *made.directories, *made.links)
    assert all(path.startswith("/") for path in inside)
    read_only = [path for path in inside if path.startswith("/usr") and not path.startswith("/usr/local/")]
    assert not [path for path in inside if path.startswith(("/proc", "/dev"))] + read_only


def test_ports_tell_when_a_recipe_is_ready() -> None:
    ports = {image: of(image).port for image in RECIPES}
    serving = {"nginx": 80, "tomcat": 8080, "echo": 8080, "httpd": 80, "echoserver": 8080, "serve-hostname": 9376}
    assert ports == {**dict.fromkeys(RECIPES), **serving}


def test_command_replaces_the_program_and_its_readiness() -> None:
    made = of("nginx", command=["sh", "-c"], args=["sleep 1"])
    assert made.argv == ("sh", "-c", "sleep 1")
    assert made.port is None
    assert "/etc/nginx/nginx.conf" in made.files


def test_args_alone_replace_the_recipe_s_arguments() -> None:
    made = of("nginx", args=["-g", "daemon off; worker_priority 1;"])
    assert made.argv == ("/usr/sbin/nginx", "-g", "daemon off; worker_priority 1;")
    assert made.port == 80


def test_args_of_a_shell_are_its_command() -> None:
    assert of("shell", args=["ping", "10.0.90.2"]).argv == ("ping", "10.0.90.2")


def test_empty_args_count_as_none() -> None:
    assert of("shell", args=[]).argv == of("shell").argv


def test_references_are_replaced_as_in_kubernetes() -> None:
    made = of(
        "shell", command=["echo", "$(B) $(NONE) $$(A) $A"], env=variables(A="1", B="$(A)2", C="$(LATER)", LATER="x")
    )
    assert made.argv == ("echo", "12 $(NONE) $(A) $A")
    assert made.env["C"] == "$(LATER)"


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("a$$", "a$"),
        ("$(a b)", "$(a b)"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_the_manifest_s_env_wins_over_the_recipe_s() -> None:
    made = of("tomcat", env=variables(CATALINA_BASE="/x", PATH="/bin"))
    assert made.env["CATALINA_BASE"] == "/x"
    assert made.env["PATH"] == "/bin"


def test_nginx_proxies_only_with_an_upstream() -> None:
    config = of("nginx", env=variables(NGINX_UPSTREAM="10.0.90.2:8080")).files["/etc/nginx/nginx.conf"]
    assert "proxy_pass http://10.0.90.2:8080;" in config
    assert "proxy_pass" not in of("nginx").files["/etc/nginx/nginx.conf"]


@pytest.mark.parametrize("upstream", ["a;b", "a b", "$host", "x:999999", "}", "http://x", "a\nb"])
def test_an_upstream_cannot_write_config(upstream: str) -> None:
    with pytest.raises(RecipeError) as caught:
        of("nginx", env=variables(NGINX_UPSTREAM=upstream))
    assert caught.value.variable == "NGINX_UPSTREAM"


def test_tomcat_s_files_are_xml_and_it_has_one_connector() -> None:
    files = of("tomcat").files
    for path in files:
        if path.endswith(".xml"):
            xml.etree.ElementTree.fromstring(files[path])
    server = xml.etree.ElementTree.fromstring(files["/var/lib/tomcat/conf/server.xml"])
    assert [connector.get("port") for connector in server.iter("Connector")] == ["8080"]


def test_echo_listens_on_its_first_tcp_port() -> None:
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9000}]
    assert of("echo", ports=ports).port == 9000
    assert of("echo", ports=ports).env["PORT"] == "9000"
    assert of("echo", ports=ports, env=variables(PORT="7")).port == 7


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", ""])
def test_echo_refuses_what_is_not_a_port(port: str) -> None:
    with pytest.raises(RecipeError):
        of("echo", env=variables(PORT=port))


def test_echo_s_answers() -> None:
    assert answer("GET", "/clientip", b"", "10.0.46.3") == ("200 OK", b"10.0.46.3\n")
    assert answer("POST", "/echo", b"\x00\xff", "x") == ("200 OK", b"\x00\xff")
    assert answer("GET", "/echo?msg=a+b%21", b"", "x") == ("200 OK", b"a b!")
    assert answer("GET", "/x", b"", "x")[0] == "404 Not Found"


def test_the_shell_recipe_is_valid_shell() -> None:
    sh = shutil.which("sh")
    assert sh is not None
    assert subprocess.run([sh, "-n", "-c", of("shell").argv[-1]], timeout=5, check=False).returncode == 0


def test_java_is_debian_s_default_else_its_newest(tmp_path: Path) -> None:
    assert find_java(tmp_path) == "/usr/bin/java"
    for name in ("java-9-openjdk-amd64", "java-1.17.0-openjdk-amd64", "java-21-openjdk-amd64", "temurin-25-jdk-amd64"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/java").touch()
    assert find_java(tmp_path) == str(tmp_path / "java-21-openjdk-amd64/bin/java")
    (tmp_path / "default-java/bin").mkdir(parents=True)
    (tmp_path / "default-java/bin/java").touch()
    assert find_java(tmp_path) == str(tmp_path / "default-java/bin/java")
