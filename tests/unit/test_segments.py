"""Super-packets cut as a wire would have them."""

import struct

import pytest

from agent.datapath.packet import internet_checksum
from testbed.capture.headers import NO_OVERLAY, Encapsulation, read_packet, unwrap
from testbed.capture.segments import GSO_TCP4, GSO_TCP6, GSO_UDP_SEGMENT, Offload, cut
from tests.packets import ipv4, ipv6, tcp, udp

MAC = bytes(12) + b"\x08\x00"
MAC6 = bytes(12) + b"\x86\xdd"
FIN_PSH_ACK, CWR = 0x19, 0x80
FLANNEL = Encapsulation("udp", 8285)
VXLAN = Encapsulation("vxlan", 8472)


def transport_is_right(packet: bytes) -> bool:
    if packet[0] >> 4 == 6:
        pseudo = packet[8:40] + struct.pack("!IHBB", len(packet) - 40, 0, 0, packet[6])
        return internet_checksum(pseudo + packet[40:]) in (0, 0xFFFF)
    header = (packet[0] & 0xF) * 4
    pseudo = packet[12:20] + struct.pack("!HH", packet[9], len(packet) - header)
    return internet_checksum(pseudo + packet[header:]) in (0, 0xFFFF)


def test_tcp_pieces_continue_each_other_and_have_right_checksums() -> None:
    payload = bytes(range(256)) * 10
    whole = MAC + ipv4("10.0.0.1", "10.0.0.2", tcp(100, payload, flags=FIN_PSH_ACK | CWR), protocol=6)
    pieces = cut(whole, 14, Offload(True, GSO_TCP4, 1000, 34, 16), NO_OVERLAY)
    packets = [read_packet(piece, 14) for piece in pieces]
    assert [packet.sequence for packet in packets if packet] == [100, 1100, 2100]
    assert b"".join(piece[packet.payload :] for piece, packet in zip(pieces, packets, strict=True) if packet) == payload
    assert [packet.header.identification for packet in packets if packet] == [0x1234, 0x1235, 0x1236]
    assert [packet.flags for packet in packets if packet] == [0x10 | CWR, 0x10, FIN_PSH_ACK]
    for piece in pieces:
        assert internet_checksum(piece[14:34]) == 0
        assert transport_is_right(piece[14:])
        assert piece[:14] == MAC


def test_a_datagram_of_many_inner_packets_becomes_one_datagram_each() -> None:
    inner = [ipv4("10.0.1.2", "10.0.2.2", udp(1, 2, bytes([number]) * 100)) for number in range(5)]
    inner.append(ipv4("10.0.1.2", "10.0.2.2", udp(1, 2, b"short")))
    whole = ipv4("192.168.8.1", "192.168.8.2", udp(8285, 8285, b"".join(inner)))
    assert len(list(unwrap(whole, 0, FLANNEL))) == len(inner), "before it is cut, all are seen in it"
    pieces = cut(whole, 0, Offload(True, GSO_UDP_SEGMENT, len(inner[0]), 20, 6), FLANNEL)
    assert [piece[28:] for piece in pieces] == inner
    for piece in pieces:
        assert transport_is_right(piece)
        assert len(list(unwrap(piece, 0, FLANNEL))) == 1


def test_packets_of_a_kernels_tunnel_are_cut_with_both_headers() -> None:
    inner = MAC + ipv4("10.0.1.2", "10.0.2.2", tcp(7, bytes(2500)), protocol=6)
    whole = MAC + ipv4("192.168.8.1", "192.168.8.2", udp(40000, 8472, bytes(8) + inner))
    pieces = cut(whole, 14, Offload(True, GSO_TCP4, 1000, 84, 16), VXLAN)
    assert len(pieces) == 3
    for piece, length in zip(pieces, (1000, 1000, 500), strict=True):
        (wrapped,) = unwrap(piece, 14, VXLAN)
        assert wrapped.outer is not None
        assert wrapped.inner.end - wrapped.inner.payload == length
        assert wrapped.outer.header.total_length == len(piece) - 14
        assert transport_is_right(piece[wrapped.inner.offset :])


def test_ipv6_is_cut_too_inside_a_tunnel_and_outside() -> None:
    inner = MAC6 + ipv6("fd00::1", "fd00::2", tcp(7, bytes(2500)), protocol=6)
    whole = MAC6 + ipv6("fd00:8::1", "fd00:8::2", udp(40000, 8472, bytes(8) + inner))
    for frame, start in ((whole, 124), (inner, 54)):
        pieces = cut(frame, 14, Offload(True, GSO_TCP6, 1000, start, 16), VXLAN)
        found = [next(unwrap(piece, 14, VXLAN)) for piece in pieces]
        assert [wrapped.inner.sequence for wrapped in found] == [7, 1007, 2007]
        for piece, wrapped in zip(pieces, found, strict=True):
            assert transport_is_right(piece[wrapped.inner.offset :])
            assert wrapped.inner.offset + wrapped.inner.header.total_length == len(piece)
            assert (wrapped.outer or wrapped.inner).header.total_length == len(piece) - 14


def test_an_unfinished_checksum_is_completed() -> None:
    right = ipv4("10.0.0.1", "10.0.0.2", tcp(1, b"hello"), protocol=6)
    header, segment = right[:20], bytearray(right[20:])
    segment[16:18] = b"\0\0"
    pseudo = ~internet_checksum(header[12:20] + struct.pack("!HH", 6, len(segment))) & 0xFFFF
    segment[16:18] = struct.pack("!H", pseudo)
    (done,) = cut(header + bytes(segment), 0, Offload(True, 0, 0, 20, 16), NO_OVERLAY)
    assert transport_is_right(done)


@pytest.mark.parametrize("frame", [b"", b"\x50" * 40, MAC + b"arp"], ids=["empty", "version 5", "not ip"])
def test_a_packet_other_than_ip_is_unchanged(frame: bytes) -> None:
    assert cut(frame, 0, Offload(True, GSO_TCP4, 1000, 20, 16), NO_OVERLAY) == [frame]
