"""What captures show of IPv6: frames that a dual-stack lab sent, and their lines."""

import pytest

from testbed.capture.headers import NO_OVERLAY, Encapsulation, read_packet
from testbed.capture.lines import line
from tests.dual_stack_frames import ETHERNET, FRAMES

VXLAN = Encapsulation("vxlan", 8472)
SOLICITATION = (
    "33330000000202000000000186dd6000000000203afffe80000000000000000000000000000bff0200000000000000000001ff000002"
    "8700000000000000fd00000a0000004600000000000000020101020000000001"
)
"""Made by RFC 4861 §4.3: neighbours of a lab are known without asking."""


def said(frame: bytes, overlay: Encapsulation = VXLAN) -> str:
    """Return the line without time, point and direction."""
    return line("somewhere", 0, frame, ETHERNET, overlay, outgoing=False).partition(" in  ")[2]


@pytest.mark.parametrize(("expected", "frame"), FRAMES.items())
def test_a_real_frame_is_shown_by_its_packet_and_what_carries_it(expected: str, frame: str) -> None:
    assert said(bytes.fromhex(frame)) == expected


def test_without_an_overlay_a_datagram_is_just_that() -> None:
    frame = next(bytes.fromhex(frame) for words, frame in FRAMES.items() if "tcp SYN" in words)
    assert said(frame, NO_OVERLAY).startswith("[fd00:8::227]:")
    assert ":8472 udp, " in said(frame, NO_OVERLAY)


def test_who_asks_for_a_neighbour_says_for_whom() -> None:
    assert said(bytes.fromhex(SOLICITATION)) == (
        "fe80::b > ff02::1:ff00:2 icmp6 who has fd00:a:0:46::2, 72 bytes, hop limit 255"
    )


@pytest.mark.parametrize("frame", FRAMES.values())
def test_a_frame_that_was_cut_anywhere_is_no_trouble(frame: str) -> None:
    whole = bytes.fromhex(frame)
    for length in range(ETHERNET, len(whole)):
        assert said(whole[:length])
    assert read_packet(whole[: ETHERNET + 39], ETHERNET) is None
