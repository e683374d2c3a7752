from collections.abc import Sequence
from dataclasses import replace

import pytest

from testbed.pods.pod_state import (
    ContainerFacts,
    ContainerStatus,
    container_status,
    listening_ports,
    pod_phase,
    pod_state,
    shell_exit_code,
    why_not_ready,
)

RUNNING = ContainerFacts("running", started_at=0.0, pid=42)
STARTING = ContainerFacts("running", started_at=0.0, pid=42, listens=False)
PENDING = ContainerFacts("pending")
CRASHED = ContainerFacts("backoff", exit_code=127, started_at=0.0, restarts=2, message="nosuch: no such program")
COMPLETED = ContainerFacts("exited", exit_code=0, started_at=0.0)
TRIED_AGAIN = ContainerFacts("running", exit_code=127, started_at=0.0, restarts=3)
FAILED = ContainerFacts("exited", exit_code=3, started_at=0.0)


def statuses(*facts: ContainerFacts) -> list[ContainerStatus]:
    return [container_status(f"c{number}", "shell", each) for number, each in enumerate(facts)]


def state(*facts: ContainerFacts, terminating: bool = False, sandbox: bool = True) -> str:
    return pod_state(statuses(*facts), terminating=terminating, sandbox=sandbox)


@pytest.mark.parametrize(
    ("facts", "phase", "word"),
    [
        ([PENDING], "Pending", "ContainerCreating"),
        ([RUNNING], "Running", "Running"),
        ([RUNNING, PENDING], "Pending", "ContainerCreating"),
        ([RUNNING, CRASHED], "Running", "CrashLoopBackOff"),
        ([RUNNING, TRIED_AGAIN], "Running", "CrashLoopBackOff"),
        ([COMPLETED], "Succeeded", "Completed"),
        ([COMPLETED, RUNNING], "Running", "Running"),
        ([COMPLETED, STARTING], "Running", "NotReady"),
        ([COMPLETED, FAILED], "Failed", "Completed"),
        ([FAILED], "Failed", "Error"),
        ([FAILED, RUNNING], "Running", "Error"),
    ],
)
def test_a_pod_is_called_what_kubectl_calls_it(facts: Sequence[ContainerFacts], phase: str, word: str) -> None:
    assert pod_phase(statuses(*facts)) == phase
    assert state(*facts) == word


def test_a_pod_that_is_being_deleted_is_terminating_whatever_its_containers_do() -> None:
    assert state(RUNNING, terminating=True) == "Terminating"
    assert state(CRASHED, terminating=True, sandbox=False) == "Terminating"


def test_a_pod_without_its_pause_process_is_not_ready_unless_it_is_over() -> None:
    assert state(CRASHED, sandbox=False) == "NotReady"
    assert state(PENDING, sandbox=False) == "ContainerCreating"
    assert state(COMPLETED, sandbox=False) == "Completed"


def test_a_container_is_ready_when_it_runs_and_listens() -> None:
    ready, starting, crashed = statuses(RUNNING, STARTING, CRASHED)
    assert (ready.ready, starting.ready, crashed.ready) == (True, False, False)


def test_a_container_is_not_ready_before_its_post_start_is_over() -> None:
    found = statuses(replace(RUNNING, in_post_start=True))
    assert not found[0].ready
    assert why_not_ready(found, sandbox=True) == "c0 is running its postStart handler"


def test_a_crashed_container_shows_its_exit_code_restarts_and_reason() -> None:
    (status,) = statuses(CRASHED)
    assert (status.state, status.reason, status.exit_code, status.restarts) == ("waiting", "CrashLoopBackOff", 127, 2)
    assert status.message == "nosuch: no such program"
    assert status.pid is None


def test_the_awaited_part_is_named() -> None:
    assert why_not_ready(statuses(RUNNING), sandbox=True) == ""
    assert "c0 does not listen" in why_not_ready(statuses(STARTING), sandbox=True)
    assert "c1: CrashLoopBackOff (nosuch: no such program)" in why_not_ready(statuses(RUNNING, CRASHED), sandbox=True)
    assert "c0: Error (exit code 3)" in why_not_ready(statuses(FAILED), sandbox=True)
    assert "pause" in why_not_ready(statuses(RUNNING), sandbox=False)


def test_exit_codes_are_given_as_a_shell_gives_them() -> None:
    assert [shell_exit_code(code) for code in (None, 0, 3, -9)] == [None, 0, 3, 137]


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def table(*sockets: tuple[str, str]) -> str:
    return HEADER + "".join(f"   0: {local} 00000000:0000 {state} 00000000:00000000\n" for local, state in sockets)


def test_listening_ports_are_those_in_listen_state_on_an_address_that_others_reach() -> None:
    text = table(
        ("00000000:0050", "0A"),  # 0.0.0.0:80
        ("022E000A:1F90", "0A"),  # 10.0.46.2:8080
        ("0100007F:1F45", "0A"),  # 127.0.0.1:8005
        ("022E000A:01BB", "01"),  # established
    )
    assert listening_ports(text) == {80, 8080}


def test_listening_ports_of_ipv6_sockets_count_except_on_loopback() -> None:
    text = table(
        ("00000000000000000000000000000000:1F90", "0A"),  # [::]:8080
        ("00000000000000000000000001000000:1F45", "0A"),  # [::1]:8005
        ("0000000000000000FFFF00000100007F:1F46", "0A"),  # [::ffff:127.0.0.1]:8006
    )
    assert listening_ports(text) == {8080}


def test_an_empty_socket_table_has_no_ports() -> None:
    assert listening_ports(HEADER) == frozenset()
    assert listening_ports("") == frozenset()
