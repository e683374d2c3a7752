"""Two agents with one public address on a real etcd: one of them is refused, and says with whom it is in conflict."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, wait_until
from tests.rows import MEASURED

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.row("F38")]
ADDRESS = "192.168.8.227"
TTL_S = 5
REFUSED_LIMIT_S = 2.0
ADDRESS_FREE_LIMIT_S = TTL_S + 15.0
"""The lease of the dead ends, and who was refused asks every ten seconds."""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """Start an underlay with etcd and a network config."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"oa{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def twin(underlay: Underlay, number: int, *, start: bool = True) -> Agent:
    """Start another machine that claims the same address."""
    flags = (f"--public-ip={ADDRESS}", f"--subnet-lease-ttl={TTL_S}s")
    return underlay.agent(f"node{number}", f"192.168.8.{226 + number}", *flags, start=start)


def refused(agent: Agent) -> bool:
    return "two nodes have it" in agent.get("/readyz")[1]


@pytest.mark.row("C15")
def test_the_second_reports_the_owner_of_its_address_and_the_first_keeps_everything(
    underlay: Underlay, record_property: Callable[[str, object], None]
) -> None:
    first = twin(underlay, 1)
    first.wait_ready()
    before = underlay.leases()
    second = twin(underlay, 2)
    wait_until(lambda: "INFO underlay: " in second.log, 15, "it looks for a subnet")
    began = time.monotonic()
    wait_until(lambda: refused(second), 10, "the second is refused", lambda: second.log)
    took_s = time.monotonic() - began
    record_property(MEASURED, f'{{"promise": "{REFUSED_LIMIT_S:g} s", "seconds": [{took_s:.2f}]}}')
    assert took_s < REFUSED_LIMIT_S
    status, why = second.get("/readyz")
    assert status == 503
    assert f"{ADDRESS} on node2" in why
    assert "on node1" in why
    (warning,) = first.state()["warnings"]
    assert warning.startswith(f"node2 has our public address {ADDRESS} too")
    assert "WARNING node2 has our public address" in first.log
    assert underlay.leases() == before, "no key is other than before, and no question is left"
    assert first.get("/readyz")[0] == 200
    first.end()
    second.wait_ready(ADDRESS_FREE_LIMIT_S)
    assert list(underlay.leases().values()) == list(before.values())


def test_of_two_that_start_together_one_is_refused(underlay: Underlay) -> None:
    twins = [twin(underlay, number, start=False) for number in (1, 2)]
    for each in twins:
        each.start()
        underlay.undo.callback(each.end)
    wait_until(
        lambda: sorted((refused(each), each.get("/readyz")[0]) for each in twins) == [(False, 200), (True, 503)],
        20,
        "one is ready and one is refused",
        lambda: [each.log for each in twins],
    )
    assert len(underlay.leases()) == 1


def test_a_node_that_lost_its_files_gets_its_own_subnet_back(underlay: Underlay) -> None:
    node = twin(underlay, 1)
    node.wait_ready()
    before = underlay.leases()
    node.end()
    node.subnet_file.unlink()
    node.start()
    node.wait_ready()
    assert underlay.leases() == before
