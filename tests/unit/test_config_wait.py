"""Waiting for a usable config: patient, and not chatty."""

import logging
import threading

import pytest

from agent.errors import InvalidConfig, RegistryDenied, RegistryUnavailable
from agent.leases.config_wait import wait_for_config
from agent.netconfig.config import NetworkConfig
from tests.unit.fake_registry import FakeClock, FakeRegistry

GOOD = b'{"Network":"10.0.0.0/16"}'


def wait(registry: FakeRegistry, clock: FakeClock, give_up_after_s: float = 200) -> NetworkConfig | None:
    stop = threading.Event()
    clock.at(give_up_after_s, stop.set)
    return wait_for_config(registry, stop, clock=clock)


@pytest.mark.row("B21")
def test_a_config_that_comes_late_is_taken_and_the_wait_is_reported_every_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    clock.at(95, lambda: setattr(registry, "config_text", GOOD))
    config = wait(registry, clock)
    assert config is not None
    assert str(config.network) == "10.0.0.0/16"
    assert len(caplog.records) == 10
    assert "waiting for the network config" in caplog.text


@pytest.mark.row("B21")
def test_a_bad_config_is_reported_at_once_and_its_correction_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    clock.at(3, lambda: setattr(registry, "config_text", b'{"Network":"10.0.0.0/29"}'))
    clock.at(6, lambda: setattr(registry, "config_text", b"{"))
    clock.at(9, lambda: setattr(registry, "config_text", GOOD))
    assert wait(registry, clock) is not None
    assert [("/28" in text, "offset" in text) for text in caplog.messages] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_a_store_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    registry.config_text, registry.failure = GOOD, RegistryUnavailable("no answer")
    clock.at(35, lambda: setattr(registry, "failure", None))
    assert wait(registry, clock) is not None
    assert 3 <= len(caplog.records) <= 4
    assert len(registry.calls) < 45, "each 1 to 2 s after a few quicker ones"


def test_stop_ends_the_wait_and_a_refusal_is_raised() -> None:
    clock, registry = FakeClock(), FakeRegistry()
    assert wait(registry, clock, give_up_after_s=5) is None
    registry.failure = RegistryDenied("permission denied")
    with pytest.raises(RegistryDenied):
        wait(registry, clock)


@pytest.mark.row("B24")
def test_the_callers_check_may_refuse_a_config(caplog: pytest.LogCaptureFixture) -> None:
    clock, registry, stop = FakeClock(), FakeRegistry(), threading.Event()
    registry.config_text = b'{"Network":"10.0.0.0/16","Backend":{"Type":"carrier-pigeon"}}'

    def check(config: NetworkConfig) -> None:
        raise InvalidConfig(f"Backend.Type: {config.backend_type} is not supported")

    clock.at(5, stop.set)
    assert wait_for_config(registry, stop, check, clock=clock) is None
    assert "carrier-pigeon is not supported" in caplog.text


@pytest.mark.row("B24")
def test_an_option_without_a_reader_is_named(caplog: pytest.LogCaptureFixture) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    registry.config_text = b'{"Network":"10.0.0.0/16","Backend":{"Type":"udp","Prot":8285}}'
    with caplog.at_level(logging.WARNING):
        assert wait(registry, clock) is not None
    assert caplog.messages == ["Backend.Prot: not an option of udp, ignored"]


def test_the_caller_learns_what_is_waited_for() -> None:
    clock, registry, stop = FakeClock(), FakeRegistry(), threading.Event()
    told: list[str] = []
    clock.at(3, lambda: setattr(registry, "config_text", b'{"Network":"10.0.0.0/29"}'))
    clock.at(6, stop.set)
    assert wait_for_config(registry, stop, on_waiting=told.append, clock=clock) is None
    assert told[0].startswith("waiting for the network config")
    assert "/28" in told[-1]


@pytest.mark.row("B22")
def test_host_bits_are_a_warning_and_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    registry.config_text = b'{"Network":"10.3.5.7/16"}'
    assert wait(registry, clock) is not None
    assert caplog.messages == [
        "network config: Network: has host bits, which do not count (got 10.3.5.7/16; taken as 10.3.0.0/16)"
    ]


@pytest.mark.row("B21")
@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"[]", b'{"Network":"10.0.0', b"x" * 1_000_000])
def test_a_config_of_no_use_is_waited_out_with_a_line_every_ten_seconds(
    caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    clock, registry = FakeClock(), FakeRegistry()
    registry.config_text = text
    clock.at(35, lambda: setattr(registry, "config_text", GOOD))
    assert wait(registry, clock) is not None
    assert len(caplog.messages) == 4
    assert all(len(line) < 300 for line in caplog.messages)
