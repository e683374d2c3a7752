"""Who may do what: root everything, the user who ran `sudo testbed up` may look, nobody else anything."""

from collections.abc import Iterator

import pytest

from tests.e2e.command import Answer, run_verb
from tests.e2e.lab import Lab, fresh_name

OWNER, STRANGER = 65534, 65533
ENVIRONMENT = 3


@pytest.fixture(scope="module")
def owned_lab() -> Iterator[Lab]:
    """Yield a lab as OWNER's `sudo testbed up` makes it."""
    lab = Lab(fresh_name("owned"))
    answer = run_verb("up", "two_nodes", "--lab", lab.name, extra={"SUDO_UID": str(OWNER)}, limit_s=110)
    try:
        assert answer.code == 0, answer
        yield lab
    finally:
        lab.down()


def by(user: int, lab: Lab, *words: str) -> Answer:
    return lab.testbed(*words, prefix=("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"))


@pytest.mark.parametrize("verb", ["status", "get pods", "get leases", "describe node node1", "events", "logs echo1"])
def test_owner_may_look_without_sudo(verb: str, owned_lab: Lab) -> None:
    answer = by(OWNER, owned_lab, *verb.split())
    assert answer.code == 0, answer
    assert answer.out == owned_lab.must(*verb.split()) or verb in ("get leases", "describe node node1")


@pytest.mark.parametrize(
    "verb",
    ["exec shell1 -- true", "shell shell1", "cli", "restart agent node1", "etcdctl -- version", "iperf shell1 shell2"],
)
def test_owner_needs_sudo_to_change_something(verb: str, owned_lab: Lab) -> None:
    answer = by(OWNER, owned_lab, *verb.split())
    assert answer.code == ENVIRONMENT
    assert answer.err.startswith("error: ")
    assert "sudo" in answer.err


@pytest.mark.parametrize("verb", ["up two_nodes", "down"])
def test_up_and_down_need_root(verb: str, owned_lab: Lab) -> None:
    answer = by(OWNER, owned_lab, *verb.split())
    assert answer.code == ENVIRONMENT
    assert "needs root" in answer.err
    assert f"sudo testbed {verb.split()[0]}" in answer.err


@pytest.mark.parametrize("verb", ["status", "get pods", "logs echo1", "exec shell1 -- true"])
def test_stranger_is_refused(verb: str, owned_lab: Lab) -> None:
    answer = by(STRANGER, owned_lab, *verb.split())
    assert answer.code == ENVIRONMENT, answer
    assert answer.err.startswith("error: ")
    assert len(answer.err.splitlines()) == 1
    assert answer.out == ""


@pytest.mark.parametrize("verb", ["--help", "validate two_nodes", "topologies", "up --help", "exec --help"])
def test_help_validate_and_topologies_need_no_rights(verb: str, owned_lab: Lab) -> None:
    assert by(STRANGER, owned_lab, *verb.split()).code == 0
