"""What an image reference means: a recipe, a rule of the cluster file or the command line, or nothing."""

import pytest

from testbed.cluster import debian_versions
from testbed.cluster.image_names import ImageRule, Meaning, meaning_of, read_rules, reference
from testbed.cluster.images import RECIPES
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.errors import InvalidInput

DIGEST = "sha256:" + "0" * 64
EVERY = (ImageRule("*", "echo"),)


def pod(image: str, more: str = "") -> str:
    return f"""\
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec: {{containers: [{{name: c, image: '{image}'{more}}}]}}
"""


def read(manifest: str, cluster: str = "nodes: [node1]", images: tuple[ImageRule, ...] = ()) -> Cluster:
    return read_cluster(f"{cluster}\n---\n{manifest}".encode(), "c.yaml", images)


def warnings_of(image: str, more: str = "", images: tuple[ImageRule, ...] = ()) -> list[str]:
    return [str(warning).partition("image: ")[2] for warning in read(pod(image, more), images=images).warnings]


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("nginx", ("nginx", "", "")),
        ("nginx:1.14.2", ("nginx", "1.14.2", "")),
        (f"nginx@{DIGEST}", ("nginx", "", DIGEST)),
        (f"host:5000/a/b:c@{DIGEST}", ("host:5000/a/b", "c", DIGEST)),
        ("host:5000/a/b", ("host:5000/a/b", "", "")),
    ],
)
def test_a_reference_is_taken_apart(image: str, parts: tuple[str, str, str]) -> None:
    assert reference(image) == parts


@pytest.mark.parametrize(
    ("image", "recipe"),
    [
        ("nginx:1.14.2", "nginx"),
        ("docker.io/library/nginx", "nginx"),
        (f"library/nginx@{DIGEST}", "nginx"),
        ("registry.k8s.io/nginx-slim:0.24", "nginx"),
        ("busybox:1.28", "busybox"),
        ("docker.io/curlimages/curl:8.16.0", "curl"),
        ("registry.k8s.io/e2e-test-images/agnhost:2.53", "agnhost"),
        ("registry.k8s.io/echoserver:1.10", "echoserver"),
        ("registry.k8s.io/serve_hostname", "serve-hostname"),
        ("nicolaka/netshoot", "netshoot"),
        ("registry.k8s.io/pause:3.9", "pause"),
    ],
)
def test_a_tag_or_digest_of_a_known_image_is_its_recipe(image: str, recipe: str) -> None:
    assert meaning_of(image, ()) == Meaning(recipe)
    assert recipe in RECIPES


@pytest.mark.parametrize("image", ["redis", "example.com/nginx", "somebody/nginx:1", "nginx-extra", "", ":", "@"])
def test_an_image_of_that_name_owned_by_another_user_is_ignored(image: str) -> None:
    assert meaning_of(image, ()) is None


def test_no_image_at_all_has_no_stand_in() -> None:
    assert meaning_of("", EVERY) is None


def test_the_rule_for_all_is_for_images_without_a_recipe() -> None:
    assert meaning_of("redis:alpine", EVERY) == Meaning("echo", stand_in=True)
    assert meaning_of("nginx:1.14.2", EVERY) == Meaning("nginx")


def test_the_first_rule_that_fits_wins_with_or_without_the_tag() -> None:
    rules = (ImageRule("*/web", "nginx"), ImageRule("*/web:2", "tomcat"), ImageRule("nginx*", "echo"), *EVERY)
    assert meaning_of("shop.example/web:2", rules) == Meaning("nginx")
    assert meaning_of("nginx:1", rules) == Meaning("echo", stand_in=True)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [("*", "not PATTERN=RECIPE (got *"), ("=echo", "not PATTERN=RECIPE"), ("*=ech", 'did you mean "echo"?')],
)
def test_a_wrong_option_is_one_line(word: str, wrong: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--images: ") as caught:
        read_rules([word], RECIPES)
    assert wrong in str(caught.value)


def test_the_warning_names_the_version_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_versions, "_version_of", lambda package: "1.22.1" if package == "nginx-light" else "")
    assert warnings_of("nginx:1.14.2") == ["this machine's nginx 1.22.1 runs (got nginx:1.14.2; nothing is pulled)"]
    assert warnings_of("busybox:1.28") == ["this machine's BusyBox runs (got busybox:1.28; nothing is pulled)"]
    assert warnings_of("debian:12") == ["recipe shell runs (got debian:12; nothing is pulled)"]


@pytest.mark.parametrize("image", ["nginx", "nginx:latest", "nginx:1.22.1", "shell", "busybox"])
def test_there_is_no_warning_where_just_that_runs(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_versions, "_version_of", lambda _package: "1.22.1")
    assert warnings_of(image) == []


def test_a_stand_in_is_named_with_its_ports() -> None:
    more = ", ports: [{containerPort: 6379}, {containerPort: 53, protocol: UDP}]"
    (warning,) = warnings_of("redis:alpine", more, EVERY)
    assert warning.startswith("a stand-in that answers on its ports (6379/TCP, 53/UDP) runs (got redis:alpine")


def test_the_cluster_file_has_rules_and_the_command_line_comes_first() -> None:
    file = "nodes: [node1]\nimages: {'*': echo, 'redis*': shell}"
    assert read(pod("redis"), file).pods[0].spec.containers[0].recipe == "shell"
    assert read(pod("shop"), file).pods[0].spec.containers[0].stand_in
    assert read(pod("redis"), file, (ImageRule("redis", "nginx"),)).pods[0].spec.containers[0].recipe == "nginx"


def test_an_unknown_image_says_what_to_do_and_a_wrong_recipe_where_it_is() -> None:
    with pytest.raises(SpecError) as caught:
        read(pod("redis"))
    assert "want nginx, " in str(caught.value)
    assert "--images '*=echo'" in str(caught.value)
    with pytest.raises(SpecError) as caught:
        read(pod("shell"), "nodes: [node1]\nimages: {'*': ehco}")
    assert str(caught.value).startswith("error: c.yaml:2:15: images.*: no such recipe (got ehco; want nginx, ")


def test_what_stands_in_is_a_part_of_a_pod_but_not_of_its_manifest() -> None:
    mapped, known = read(pod("nginx"), images=(ImageRule("nginx", "echo"),)).pods[0], read(pod("nginx")).pods[0]
    assert mapped != known
    assert mapped.to_manifest() == known.to_manifest()


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("1.22.1-9+deb12u2", "1.22.1"), ("1:1.35.0-4+deb12u1+b1", "1.35.0"), ("10.1.34-0+deb12u1", "10.1.34"), ("7", "7")],
)
def test_a_debian_version_is_shown_as_its_authors_write_it(
    version: str, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = (
        f"Package: a\nStatus: install ok installed\nPriority: x\nVersion: {version}\nDescription: y\n\nPackage: b\n"
    )
    monkeypatch.setattr(debian_versions, "_status", lambda: record)
    debian_versions._version_of.cache_clear()
    assert debian_versions.version_of(("none", "a")) == upstream
    debian_versions._version_of.cache_clear()
    assert debian_versions.version_of(("b",)) == ""
    debian_versions._version_of.cache_clear()
