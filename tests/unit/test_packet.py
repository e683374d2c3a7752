"""IPv4 headers and checksums, and when an ICMP answer is due."""

import random
import struct
from ipaddress import IPv4Address

import pytest

from agent.datapath.counters import DropReason
from agent.datapath.packet import (
    IPv4Header,
    header_checksum_is_right,
    internet_checksum,
    net_unreachable,
    parse_ipv4,
)
from tests.packets import ipv4, udp

POD, ELSEWHERE, TUN = "10.0.46.2", "10.0.77.5", int(IPv4Address("10.0.46.0"))


def slow_checksum(data: bytes) -> int:
    """Compute RFC 1071 to the letter: add 16-bit words, carry around."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parsed(packet: bytes) -> IPv4Header:
    header = parse_ipv4(packet)
    assert isinstance(header, IPv4Header)
    return header


def answer_to(packet: bytes) -> bytes | None:
    return net_unreachable(packet, parsed(packet), TUN)


def test_checksum_equals_the_word_by_word_sum() -> None:
    data = random.Random(1071).randbytes(9001)
    for length in [*range(130), *range(130, 9002, 479), 9001]:
        assert internet_checksum(data[:length]) == slow_checksum(data[:length]), length


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\1\xff\xfe"])
def test_checksum_distinguishes_the_two_zeroes(data: bytes) -> None:
    assert internet_checksum(data) == slow_checksum(data)


def test_rfc_1071_example() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@pytest.mark.row("B28")
def test_right_header_checksum_is_accepted_and_every_flipped_bit_is_seen() -> None:
    packet = ipv4(POD, ELSEWHERE, options=bytes(8))
    assert header_checksum_is_right(packet, 28)
    for bit in range(28 * 8):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not header_checksum_is_right(bytes(flipped), 28), bit


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", DropReason.SHORT),
        (b"E", DropReason.SHORT),
        (ipv4(POD, ELSEWHERE)[:19], DropReason.SHORT),
        (ipv4(POD, ELSEWHERE, version_ihl=0x05), DropReason.VERSION),
        (ipv4(POD, ELSEWHERE, version_ihl=0x55), DropReason.VERSION),
        (ipv4(POD, ELSEWHERE, version_ihl=0xF5), DropReason.VERSION),
        (b"\x60" + bytes(47), DropReason.VERSION),
        *((ipv4(POD, ELSEWHERE, bytes(40), version_ihl=0x40 | ihl), DropReason.IHL) for ihl in range(5)),
        (ipv4(POD, ELSEWHERE, bytes(20), version_ihl=0x4F), DropReason.IHL),
        (ipv4(POD, ELSEWHERE, total_length=19), DropReason.LENGTH),
        (ipv4(POD, ELSEWHERE, options=bytes(4), total_length=23), DropReason.LENGTH),
        (ipv4(POD, ELSEWHERE, total_length=21), DropReason.LENGTH),
    ],
)
def test_malformed_header_is_refused_with_its_reason(packet: bytes, reason: DropReason) -> None:
    assert parse_ipv4(packet) == reason


@pytest.mark.row("B26")
def test_header_of_the_greatest_length_passes() -> None:
    header = parsed(ipv4(POD, ELSEWHERE, options=bytes(40)))
    assert header.length == 60
    assert header.total_length == 60


def test_fields_are_read_from_their_places() -> None:
    header = parsed(ipv4(POD, ELSEWHERE, b"abc", ttl=9, protocol=6, flags_and_offset=0x2001))
    assert (header.total_length, header.identification, header.ttl, header.protocol) == (23, 0x1234, 9, 6)
    assert header.fragment_offset == 1
    assert IPv4Address(header.source) == IPv4Address(POD)
    assert IPv4Address(header.destination) == IPv4Address(ELSEWHERE)


def test_unreachable_quotes_the_header_and_eight_bytes() -> None:
    offender = ipv4(POD, ELSEWHERE, udp(1000, 9, b"0123456789"), options=b"\x01" * 4)
    answer = answer_to(offender)
    assert answer is not None
    header = parsed(answer)
    assert header_checksum_is_right(answer, 20)
    assert internet_checksum(answer[20:]) == 0
    assert (header.source, IPv4Address(header.destination), header.protocol) == (TUN, IPv4Address(POD), 1)
    assert answer[20:22] == b"\x03\x00"
    assert answer[28:] == offender[: 24 + 8]


def test_unreachable_quotes_no_more_than_there_is() -> None:
    offender = ipv4(POD, ELSEWHERE, b"abc", protocol=6)
    answer = answer_to(offender)
    assert answer is not None
    assert answer[28:] == offender


@pytest.mark.parametrize("query", [0, 8, 13])
def test_icmp_queries_are_answered(query: int) -> None:
    assert answer_to(ipv4(POD, ELSEWHERE, bytes([query]) + bytes(7), protocol=1)) is not None


@pytest.mark.parametrize(
    "offender",
    [
        *(ipv4(POD, ELSEWHERE, bytes([error]) + bytes(7), protocol=1) for error in (3, 4, 5, 11, 12, 200)),
        ipv4(POD, ELSEWHERE, protocol=1),
        ipv4(POD, ELSEWHERE, bytes(8), flags_and_offset=0x2001),
        ipv4(POD, "224.0.0.251", bytes(8)),
        ipv4(POD, "255.255.255.255", bytes(8)),
        *(ipv4(source, ELSEWHERE, bytes(8)) for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")),
    ],
)
def test_rfc_1122_forbids_an_answer(offender: bytes) -> None:
    assert answer_to(offender) is None


def test_first_fragment_is_answered() -> None:
    assert answer_to(ipv4(POD, ELSEWHERE, bytes(8), flags_and_offset=0x2000)) is not None
