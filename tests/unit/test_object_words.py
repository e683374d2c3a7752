"""Words that name objects mean what they mean to kubectl."""

import click
import pytest

from testbed.cluster.kinds import DEPLOYMENT, KINDS, NODE, POD, SERVICE, Kind
from testbed.command.command_line import bare_name
from testbed.command.object_words import objects_meant


@pytest.fixture(autouse=True)
def _within_a_verb() -> object:
    with click.Context(click.Command("get")) as context:
        yield context


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("pods", {POD: ()}),
        ("po", {POD: ()}),
        ("Pod web", {POD: ("web",)}),
        ("pods web db web", {POD: ("web", "db")}),
        ("po,svc", {POD: (), SERVICE: ()}),
        ("svc,po web", {SERVICE: ("web",), POD: ("web",)}),
        ("po/web", {POD: ("web",)}),
        ("po/web svc/web pod/db", {POD: ("web", "db"), SERVICE: ("web",)}),
        ("deployments.apps", {DEPLOYMENT: ()}),
        ("deployment.v1.apps/web", {DEPLOYMENT: ("web",)}),
        ("no,po", {NODE: (), POD: ()}),
    ],
)
def test_arguments_name_kinds_and_objects(words: str, meant: dict[Kind, tuple[str, ...]]) -> None:
    found = objects_meant(words.split(), KINDS)
    assert (found, list(found)) == (meant, list(meant))


def test_all_is_every_kind_that_is_shown_by_all_and_taken_by_the_verb() -> None:
    assert list(objects_meant(["all"], KINDS, may_be_all=True)) == [kind for kind in KINDS if kind.in_all]
    assert list(objects_meant(["all"], [POD, SERVICE], may_be_all=True)) == [POD, SERVICE]
    with pytest.raises(click.UsageError, match=r"no such kind: all \(want pods\)"):
        objects_meant(["all"], [POD])


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("pod a/b pod/c", "do not mix"),
        ("pods.networking.k8s.io", "no such kind: pods.networking.k8s.io"),
        ("po,", "no such kind:  "),
        ("", "no such kind"),
        ("/web", "no such kind"),
        ("po/", r"want a name \(got po/; want pod/NAME\)"),
        ("po svc/web", "do not mix"),
        ("svc/web db", "do not mix"),
    ],
)
def test_arguments_that_name_nothing_are_refused(words: str, refused: str) -> None:
    with pytest.raises(click.UsageError, match=refused):
        objects_meant(words.split(" "), KINDS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("web", "web"),
        ("pod/web", "web"),
        ("Po/web", "web"),
        ("node/node1", "node1"),
        ("deployment.apps/web", "deployment/web"),
        ("ds/web", "daemonset/web"),
        ("shop/web", "shop/web"),
    ],
)
def test_a_pod_is_named_with_or_without_its_kind(typed: str, meant: str) -> None:
    assert bare_name(typed) == meant
