"""What captures show of IPv6: frames that a dual-stack lab sent, and their lines."""

import pytest

from testbed.capture.headers import NO_OVERLAY, Overlay
from testbed.capture.ipv6 import read_ipv6
from testbed.capture.lines import line

VXLAN = Overlay("vxlan", 8472)
ETHERNET = 14
FRAMES = dict(
    (
        (
            "fd00:a:0:46::3 > fd00:a:0:90::2 icmp6 echo request, 96 bytes, hop limit 64",
            "02420a002e010a580a002e0386dd60096c1d00383a40fd00000a000000460000000000000003fd00000a000000900000"
            "00000000000280005a5900010000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021"
            "22232425262728292a2b2c2d2e2f",
        ),
        (
            "fd00:a:0:46::3 > fd00:a:0:90::2 icmp6 echo request, 96 bytes, hop limit 63"
            " [[fd00:8::227]:49096 > [fd00:8::228]:8472]",
            "0200c0a808e40200c0a808e386dd60000000007e1140fd000008000000000000000000000227fd000008000000000000"
            "000000000228bfc82118007efeef080000000000010086f48b52d9e06a411a674cae86dd60096c1d00383a3ffd00000a"
            "000000460000000000000003fd00000a00000090000000000000000280005a5900010000000102030405060708090a0b"
            "0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
        ),
        (
            "[fd00:a:0:46::3]:59390 > [fd00:a:0:90::2]:8080 tcp SYN, 80 bytes, hop limit 63"
            " [[fd00:8::227]:34443 > [fd00:8::228]:8472]",
            "0200c0a808e40200c0a808e386dd60000000006e1140fd000008000000000000000000000227fd000008000000000000"
            "000000000228868b2118006ef3e8080000000000010086f48b52d9e06a411a674cae86dd600fb1800028063ffd00000a"
            "000000460000000000000003fd00000a000000900000000000000002e7fe1f90150b724300000000a002fb86fb1e0000"
            "0204055a0402080a8b613191000000000103030a",
        ),
        (
            "fd00:a:0:90:: > fd00:a:0:46::3 icmp6 unreachable"
            " about fd00:a:0:46::3 > fd00:a:0:90::77, 152 bytes, hop limit 64"
            " [[fd00:8::228]:59616 > [fd00:8::227]:8472]",
            "0200c0a808e30200c0a808e486dd6000000000b61140fd000008000000000000000000000228fd000008000000000000"
            "000000000227e8e0211800b6ff2708000000000001006a411a674cae86f48b52d9e086dd600feb4c00703a40fd00000a"
            "000000900000000000000000fd00000a00000046000000000000000301032b8c0000000060053dce00403a3efd00000a"
            "000000460000000000000003fd00000a0000009000000000000000778000aafa000500012ef2036b00000000e5ee0200"
            "00000000101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
        ),
        (
            ":: > ff02::16 icmp6 multicast report, 76 bytes, hop limit 1",
            "3333000000160a580a002e0386dd600000000024000100000000000000000000000000000000ff020000000000000000"
            "0000000000163a000502000001008f006f870000000104000000ff0200000000000000000001ff000003",
        ),
    )
)
"""Line → frame, from shell's eth0 and node1's uplink of topologies/dual_stack.yaml."""
SOLICITATION = (
    "33330000000202000000000186dd6000000000203afffe80000000000000000000000000000bff0200000000000000000001ff000002"
    "8700000000000000fd00000a0000004600000000000000020101020000000001"
)
"""Made by RFC 4861 §4.3: neighbours of a lab are known without asking."""


def said(frame: bytes, overlay: Overlay = VXLAN) -> str:
    """Without time, point and direction."""
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
    assert read_ipv6(whole[: ETHERNET + 39], ETHERNET) is None
