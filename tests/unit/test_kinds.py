"""One registry: whatever a kind needs is there, and every verb reads it."""

import pytest
from click.testing import CliRunner, Result

from testbed.cluster.kinds import ALL, BY_WORD, KINDS, MANIFESTS, ROUTE_TABLE, Kind
from testbed.command import cli
from testbed.command.command_line import verbs
from testbed.supervisor.kinds import IN_LAB
from testbed.testing import bundle

assert cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(verbs, arguments)


def test_every_word_means_one_kind() -> None:
    words = [word for kind in KINDS for word in kind.words]
    assert len(words) == len(set(words))
    assert ALL not in BY_WORD


def test_a_lab_answers_for_every_kind_and_describes_what_can_be_described() -> None:
    assert list(IN_LAB) == list(KINDS)
    assert [kind for kind, in_lab in IN_LAB.items() if in_lab.describe] == [kind for kind in KINDS if kind.described]


@pytest.mark.parametrize("kind", MANIFESTS.values(), ids=lambda kind: kind.name)
def test_a_manifest_is_read_as_the_model_of_its_kind(kind: Kind) -> None:
    assert kind.manifest is not None
    model, _check = kind.manifest()
    assert model.model_fields["kind"].annotation.__args__ == (kind.name,)  # type: ignore[union-attr]
    assert model.model_fields["api_version"].annotation.__args__ == (kind.api_version,)  # type: ignore[union-attr]


def test_every_kind_has_columns_but_routes() -> None:
    assert [kind for kind in KINDS if not kind.columns] == [ROUTE_TABLE]


def test_get_names_the_kinds_for_an_unknown_one() -> None:
    said = run("get", "foo").output
    for kind in KINDS:
        assert kind.plural in said
    assert "no such kind: foo (want nodes, pods, " in said
    assert "routes or all)" in said
    assert "did you mean pods?" in run("get", "podds").output
    assert "no such kind: lease (want service, pod, node, deployment, " in run("forward", "lease/web:80").output


def test_help_of_get_names_every_kind_with_its_short_names() -> None:
    said = " ".join(run("get", "--help").output.split())
    for kind in KINDS:
        assert (f"{kind.plural} ({', '.join(kind.short_names)})" if kind.short_names else kind.plural) in said


@pytest.mark.parametrize("verb", ["get", "describe", "delete"])
def test_a_kind_with_a_slash_and_no_name_is_a_line(verb: str) -> None:
    done = run(verb, "po/")
    assert (done.exit_code, "want a name (got po/; want pod/NAME)" in done.output) == (2, True), done.output


def test_describe_names_the_kinds_that_it_shows() -> None:
    done = run("describe", "leases", "x")
    *others, last = [kind.plural for kind in KINDS if kind.described]
    assert (done.exit_code, f"want {', '.join(others)} or {last}" in done.output) == (2, True)


@pytest.mark.parametrize("words", [("pod/a", "b"), ("pod", "pod/a"), ("pod,svc", "svc/a")])
@pytest.mark.parametrize("verb", ["get", "describe", "delete"])
def test_kind_name_and_kind_slash_name_do_not_mix(verb: str, words: tuple[str, ...]) -> None:
    done = run(verb, *words)
    assert (done.exit_code, "KIND NAME and KIND/NAME do not mix" in done.output) == (2, True), done.output


@pytest.mark.parametrize("words", [("node", "a"), ("foo", "a"), ("lease/a",), ("pod/a", "foo/b"), ("pod,foo", "a")])
def test_delete_names_the_kinds_that_can_be_removed(words: tuple[str, ...]) -> None:
    done = run("delete", *words)
    wanted = ", ".join(kind.plural for kind in MANIFESTS.values())
    assert (done.exit_code, wanted.rpartition(", ")[0] in done.output) == (2, True), done.output


@pytest.mark.parametrize("words", [("pods",), ("pods", "a", "--all"), ("pods", "--all", "-l", "a"), ("all",)])
def test_delete_wants_names_labels_or_all(words: tuple[str, ...]) -> None:
    done = run("delete", *words)
    assert (done.exit_code, "want NAME…, -l LABELS or --all" in done.output) == (2, True), done.output


def test_a_bundle_has_a_file_of_every_kind() -> None:
    for kind in KINDS:
        assert kind.plural in bundle.EXPLAINED["get/"]
