"""A capture's filter, compiled by the real tcpdump for interfaces with and without a link header."""

import shutil

import pytest

from testbed.capture.filters import nothing
from testbed.capture.verbs import compiled
from testbed.errors import InvalidInput

pytestmark = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="there is no tcpdump")


@pytest.mark.parametrize("expression", ["ether host 02:00:00:00:00:01", "vlan", "ether broadcast and udp"])
def test_a_filter_on_the_link_header_passes_nothing_where_there_is_none(expression: str) -> None:
    ethernet, raw = compiled(expression)
    assert ethernet != nothing()
    assert raw == nothing()


def test_a_filter_on_ip_is_compiled_for_both() -> None:
    assert nothing() not in compiled("tcp port 80")


@pytest.mark.parametrize("expression", ["icmp and tcp", "icmp and tcp and ether host 02:00:00:00:00:01"])
def test_a_filter_that_no_packet_can_pass_is_refused(expression: str) -> None:
    with pytest.raises(InvalidInput, match="no packet can pass it"):
        compiled(expression)


def test_a_filter_that_no_link_type_takes_is_refused_with_tcpdumps_message() -> None:
    with pytest.raises(InvalidInput) as refused:
        compiled("port no-such-link")
    want = "(got 'port no-such-link'; want a filter of tcpdump)"
    assert str(refused.value) == f"capture: filter: unknown port 'no-such-link' {want}"
