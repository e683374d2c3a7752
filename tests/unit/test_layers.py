"""The headers of a frame with their fields: right values at the right bytes, without gaps, for every encapsulation."""

import struct
from collections.abc import Callable

import pytest

from testbed.capture.headers import Encapsulation
from testbed.capture.layers import Layer, layers_of
from tests.packets import ipv4, ipv6, tcp, udp

OUTER, INNER = ("192.168.8.1", "192.168.8.2"), ("10.0.1.2", "10.0.2.2")
ETHERNET = bytes.fromhex("02000000000202000000000108 00".replace(" ", ""))
PROBE = ipv4(*INNER, tcp(1000, b"x", flags=0x02), protocol=6, ttl=63)
VXLAN = struct.pack("!II", 0x08000000, 1 << 8) + ETHERNET
SEALED = struct.pack("<IIQ", 4, 0x4D, 9) + bytes(48) + bytes(range(16))
FRAMES = {
    "plain": (ETHERNET + PROBE, Encapsulation("none"), ["Ethernet", "IPv4", "TCP", "payload"]),
    "udp": (
        ETHERNET + ipv4(*OUTER, udp(8285, 8285, PROBE)),
        Encapsulation("udp", 8285),
        ["Ethernet", "IPv4", "UDP", "+IPv4", "+TCP", "+payload"],
    ),
    "vxlan": (
        ETHERNET + ipv4(*OUTER, udp(50000, 8472, VXLAN + PROBE)),
        Encapsulation("vxlan", 8472),
        ["Ethernet", "IPv4", "UDP", "VXLAN", "+Ethernet", "+IPv4", "+TCP", "+payload"],
    ),
    "ipip": (
        ETHERNET + ipv4(*OUTER, PROBE, protocol=4),
        Encapsulation("ipip"),
        ["Ethernet", "IPv4", "+IPv4", "+TCP", "+payload"],
    ),
    "wireguard": (
        ETHERNET + ipv4(*OUTER, udp(51820, 51820, SEALED)),
        Encapsulation("none", sealed_ports=(51820,)),
        ["Ethernet", "IPv4", "UDP", "WireGuard", "+encrypted", "tag"],
    ),
}
each = pytest.mark.parametrize(("frame", "overlay", "names"), FRAMES.values(), ids=FRAMES)


def shown(layers: tuple[Layer, ...]) -> list[str]:
    return ["+" * layer.depth + layer.name for layer in layers]


@each
def test_every_header_is_named_from_outside_to_inside(frame: bytes, overlay: Encapsulation, names: list[str]) -> None:
    assert shown(layers_of(frame, 14, overlay)) == names


@each
def test_headers_are_side_by_side_from_the_first_byte_to_the_last(
    frame: bytes, overlay: Encapsulation, names: list[str]
) -> None:
    at = 0
    for layer in layers_of(frame, 14, overlay):
        assert layer.offset == at, layer.name
        for field in layer.fields:
            assert layer.offset <= field.offset, field
            assert field.offset + field.length <= layer.offset + layer.length, field
        at += layer.length
    assert at == len(frame)


@each
def test_a_field_shows_the_value_of_its_bytes(frame: bytes, overlay: Encapsulation, names: list[str]) -> None:
    read: dict[str, Callable[[bytes], str]] = {
        "destination": lambda raw: raw.hex(":") if len(raw) == 6 else ".".join(map(str, raw)),
        "ttl": lambda raw: str(raw[0]),
        "source port": lambda raw: str(int.from_bytes(raw, "big")),
        "sequence": lambda raw: str(int.from_bytes(raw, "big")),
        "VNI": lambda raw: str(int.from_bytes(raw, "big")),
        "counter": lambda raw: str(int.from_bytes(raw, "little")),
    }
    checked = 0
    for layer in layers_of(frame, 14, overlay):
        for field in layer.fields:
            if field.name in read:
                checked += 1
                assert field.value == read[field.name](frame[field.offset : field.offset + field.length]), field
    assert checked >= 4


def test_a_packet_of_a_tun_device_begins_with_its_ip_header() -> None:
    layers = layers_of(PROBE, 0, Encapsulation("udp", 8285))
    assert (shown(layers), layers[0].offset) == (["IPv4", "TCP", "payload"], 0)


def test_ipv6_has_its_own_fields() -> None:
    frame = ipv6("fd00::1", "fd00::2", udp(1, 2, b"four"), ttl=7)
    first = layers_of(frame, 0, Encapsulation("none"))[0]
    assert {field.name: field.value for field in first.fields}["hop limit"] == "7"
    assert (first.name, first.length) == ("IPv6", 40)


def test_a_packet_other_than_ip_is_payload() -> None:
    assert shown(layers_of(ETHERNET + b"\0" * 20, 14, Encapsulation("none"))) == ["Ethernet", "payload"]
