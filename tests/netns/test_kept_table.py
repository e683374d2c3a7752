"""A kept table in a real namespace: what nft did not do in time is a failure, and is done later."""

import os
from pathlib import Path

import pytest

from agent.kernel.journal import SilentJournal
from testbed.lab import kept_table
from testbed.lab.kept_table import KeptTable, RulesWatch, TableRefused
from testbed.lab.ruleset import Ruleset
from tests.netns.conftest import Namespace, NamespaceMaker

pytestmark = pytest.mark.root

NAMES = ("first", "second")
TOO_SHORT_S = 0.00001
"""No program ends so early."""


@pytest.fixture
def machine(namespaces: NamespaceMaker) -> Namespace:
    return namespaces("machine")


@pytest.fixture
def rules(machine: Namespace) -> RulesWatch:
    return RulesWatch(machine.pid)


@pytest.fixture
def tables(rules: RulesWatch) -> list[KeptTable]:
    """Return two tables that were written."""
    found = []
    for name in NAMES:
        skeleton = f"table ip {name} {{\n set known {{ type ipv4_addr; }}\n}}\n"
        found.append(KeptTable(rules, SilentJournal(), skeleton, {}))
        found[-1].put(wanted(name, "10.0.0.1"), "test", "test")
    return found


def wanted(table: str, *known: str) -> Ruleset:
    return Ruleset(f"ip {table}", sets={"known": frozenset(known)})


def test_a_change_that_takes_too_long_is_refused_and_made_later(
    machine: Namespace, tables: list[KeptTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = wanted("first", "10.0.0.1", "10.0.0.2")
    with monkeypatch.context() as patched:
        patched.setattr(kept_table, "LIMIT_S", TOO_SHORT_S)
        with pytest.raises(TableRefused, match=r"^nft did not end within"):
            tables[0].put(both, "test", "test")
    tables[0].put(both, "test", "test")
    assert "10.0.0.2" in machine.run(["nft", "list", "table", "ip", "first"]).stdout


def test_an_nft_that_is_killed_without_a_word_is_a_refusal_and_the_change_is_made_later(
    machine: Namespace, tables: list[KeptTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = wanted("first", "10.0.0.1", "10.0.0.2")
    killed = tmp_path / "nft"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(TableRefused, match=r"^nft ended with -9"):
            tables[0].put(both, "test", "test")
    tables[0].put(both, "test", "test")
    assert "10.0.0.2" in machine.run(["nft", "list", "table", "ip", "first"]).stdout


def test_a_table_is_emptied_even_if_that_was_refused_at_first(
    machine: Namespace, rules: RulesWatch, tables: list[KeptTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kept_table, "LIMIT_S", TOO_SHORT_S)
        with pytest.raises(TableRefused):
            tables[0].put(wanted("first"), "test", "test")
    assert (tables[0].is_there, tables[0].may_be_there) == (False, True)
    tables[0].put(wanted("first"), "test", "test")
    assert "10.0.0.1" not in machine.run(["nft", "list", "table", "ip", "first"]).stdout
    never = KeptTable(rules, SilentJournal(), "table ip third {\n}\n", {})
    never.put(wanted("third"), "test", "test")
    assert not never.may_be_there


def test_a_change_by_others_is_remembered_until_it_is_repaired(
    machine: Namespace, rules: RulesWatch, tables: list[KeptTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    rules.moved()
    machine.run(["nft", "flush", "ruleset"])
    assert rules.moved()
    with monkeypatch.context() as patched:
        patched.setattr("testbed.lab.kept_table.subprocess.run", refuse)
        with pytest.raises(BlockingIOError):
            tables[0].repair("test")
    assert rules.moved(), "the table is still to be repaired"
    assert tables[0].repair("test")


def test_tables_behind_one_that_could_not_be_looked_at_are_restored_later(
    machine: Namespace, rules: RulesWatch, tables: list[KeptTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not rules.moved()
    machine.run(["nft", "flush", "ruleset"])
    assert rules.moved()
    with monkeypatch.context() as patched:
        patched.setattr(kept_table, "LIMIT_S", TOO_SHORT_S)
        with pytest.raises(TableRefused):
            tables[0].repair("test")
    assert rules.moved(), "both are still to be looked at"
    assert [one.repair("test") for one in tables] == [True, True]
    listed = machine.run(["nft", "list", "ruleset"]).stdout
    assert all(f"table ip {name}" in listed for name in NAMES)


def test_the_whole_table_is_written_at_once_where_a_change_of_it_is_refused(
    machine: Namespace, tables: list[KeptTable]
) -> None:
    machine.run(["nft", "delete", "table", "ip", "first"])
    both = wanted("first", "10.0.0.1", "10.0.0.2")
    assert tables[0].put(both, "test", "test"), "the table is written whole"
    listed = machine.run(["nft", "list", "table", "ip", "first"]).stdout
    assert all(address in listed for address in ("10.0.0.1", "10.0.0.2"))
    assert not tables[0].put(wanted("first", "10.0.0.1"), "test", "test"), "the difference is enough"


def test_a_table_that_cannot_be_listed_is_not_missing(
    rules: RulesWatch, tables: list[KeptTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "nft"
    failing.write_text("#!/bin/sh\necho 'Error: Too many open files' >&2\nexit 1\n")
    failing.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(TableRefused, match=r"^table ip first cannot be listed: Error: Too many open files$"):
            tables[0].repair("test")
    assert tables[0].is_there
    assert rules.moved(), "it is still to be looked at"
    assert not tables[0].repair("test"), "nobody has changed it"
