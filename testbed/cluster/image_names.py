"""Maps an image reference to a recipe: by its own name, or by `images:` of the cluster file and `--images`. Pure."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from testbed.cluster.problems import near_match, shorten
from testbed.errors import InvalidInput
from testbed.spelling import listed

STAND_IN = "echo"
"""The recipe that replaces an image's own program and answers on the container's declared ports."""
EVERY = "*"
"""The pattern for all images without a recipe."""

_KUBERNETES = ("registry.k8s.io", "k8s.gcr.io", "gcr.io/google_containers", "gcr.io/google-containers")
_TEST_IMAGES = ("registry.k8s.io/e2e-test-images", "k8s.gcr.io/e2e-test-images", "gcr.io/kubernetes-e2e-test-images")


def _names_below(registries: Iterable[str], names: Iterable[str], recipe: str) -> dict[str, str]:
    return {f"{registry}/{name}": recipe for registry in registries for name in names}


RECIPE_OF_REPOSITORY = {
    **{recipe: recipe for recipe in ("nginx", "httpd", "tomcat", "shell", "busybox", "echo", "netshoot", "agnhost")},
    **{recipe: recipe for recipe in ("echoserver", "serve-hostname", "curl", "pause", "alpine")},
    **dict.fromkeys(("debian", "ubuntu"), "shell"),
    "nicolaka/netshoot": "netshoot",
    "curlimages/curl": "curl",
    "kubernetes/pause": "pause",
    **_names_below(_KUBERNETES, ("nginx", "nginx-slim"), "nginx"),
    **_names_below((*_KUBERNETES, *_TEST_IMAGES), ("busybox",), "busybox"),
    **_names_below((*_KUBERNETES, *_TEST_IMAGES), ("pause",), "pause"),
    **_names_below((*_KUBERNETES, *_TEST_IMAGES), ("echoserver",), "echoserver"),
    **_names_below(_TEST_IMAGES, ("agnhost",), "agnhost"),
    **_names_below(_KUBERNETES, ("serve_hostname",), "serve-hostname"),
    **_names_below(_TEST_IMAGES, ("dnsutils", "jessie-dnsutils"), "netshoot"),
    **_names_below(_TEST_IMAGES, ("nginx",), "nginx"),
    **_names_below(_TEST_IMAGES, ("httpd",), "httpd"),
}
"""Repository, without Docker Hub's prefix → name of its recipe."""
_DOCKER_HUB = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?")


class ImageRule(NamedTuple):
    """One entry of `images:`."""

    pattern: str
    """A shell pattern of references, with or without tag; `*` alone: all without a recipe."""
    recipe: str


class Reference(NamedTuple):
    """A parsed image reference."""

    repository: str
    tag: str
    digest: str


class Meaning(NamedTuple):
    """The recipe for an image."""

    recipe: str
    stand_in: bool = False
    """Whether it only replaces the image's own program, without its commands."""


def reference(image: str) -> Reference:
    """Parse `REGISTRY/REPOSITORY:TAG@DIGEST`; a registry may have a port."""
    rest, _, digest = image.partition("@")
    path, slash, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    return Reference(f"{path}{slash}{name}", tag, digest)


def meaning_of(image: str, rules: Sequence[ImageRule]) -> Meaning | None:
    """Return the recipe for this image: by the first matching rule, else by its own name, else by a rule for all; or
    None.

    The rule for all comes last, so that a stand-in does not replace available programs.
    """
    repository = reference(image).repository
    if not repository:
        return None
    for pattern, recipe in rules:
        if pattern != EVERY and (fnmatchcase(image, pattern) or fnmatchcase(repository, pattern)):
            return Meaning(recipe, recipe == STAND_IN)
    own = RECIPE_OF_REPOSITORY.get(_DOCKER_HUB.sub("", repository, count=1)) or RECIPE_OF_REPOSITORY.get(repository)
    if own is not None:
        return Meaning(own)
    return next((Meaning(rule.recipe, rule.recipe == STAND_IN) for rule in rules if rule.pattern == EVERY), None)


def read_rules(words: Iterable[str], recipes: Iterable[str]) -> tuple[ImageRule, ...]:
    """Read `--images PATTERN=RECIPE`. Raises InvalidInput."""
    known = list(recipes)
    found = []
    for word in words:
        pattern, equals, recipe = word.rpartition("=")
        if not equals or not pattern:
            raise InvalidInput(f"--images: not PATTERN=RECIPE (got {shorten(word)}; want one such as '*={STAND_IN}')")
        if recipe not in known:
            what = f"no such recipe (got {shorten(recipe)}; want {listed(known, recipe)}){near_match(recipe, known)}"
            raise InvalidInput(f"--images: {what}")
        found.append(ImageRule(pattern, recipe))
    return tuple(found)
