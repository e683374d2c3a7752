"""Which of wireguard's datagrams carries the probe: pure part of `testbed trace`."""

import secrets
import struct

from testbed.capture.headers import Encapsulation, unwrap
from testbed.trace.sealed import match_encrypted
from testbed.trace.watch import Sighting
from tests.packets import ipv4, tcp, udp

PORT = 51820
WIREGUARD = Encapsulation("none", sealed_ports=(PORT,))
PROBE = ipv4("10.0.1.2", "10.0.2.2", tcp(1000, flags=0x02), protocol=6, ttl=63)
ANSWER = ipv4("10.0.2.2", "10.0.1.2", tcp(55, acknowledgement=1001, flags=0x12), protocol=6, identification=0)
HERE, THERE = "192.168.8.1", "192.168.8.2"


def datagram(counter: int, length: int, source: str = HERE, destination: str = THERE, kind: int = 4) -> bytes:
    filled_up = -(-length // 16) * 16
    message = struct.pack("<IIQ", kind, 77, counter) + secrets.token_bytes(filled_up + 16)
    return ipv4(source, destination, udp(PORT, PORT, message))


def seen(place: str, number: int, interface: str, direction: str, frame: bytes) -> Sighting:
    (wrapped,) = unwrap(frame, 0, WIREGUARD)
    return Sighting(place, number, 1000 + number, interface, direction == "out", False, 65534, frame, 0, wrapped)


def carriers(*sightings: Sighting) -> dict[str, bytes]:
    """Return, by interface, the inner packet of datagrams that carry the probe's packets."""
    read = match_encrypted(sightings, WIREGUARD, {"flannel-wg"})
    carried = [one for one in read if one.wrapped.outer is not None]
    return {f"{one.place} {one.interface}": one.frame[one.wrapped.inner.offset :] for one in carried}


def test_the_next_datagram_of_its_size_carries_it_to_the_other_end() -> None:
    sealed = datagram(5, len(PROBE))
    found = carriers(
        seen("node1", 1, "flannel-wg", "out", PROBE),
        seen("node1", 2, "uplink", "out", datagram(4, len(PROBE) + 16)),
        seen("node1", 3, "uplink", "out", sealed),
        seen("node1", 4, "uplink", "out", datagram(6, len(PROBE))),
        seen("node2", 1, "uplink", "in", sealed),
        seen("node2", 2, "flannel-wg", "in", PROBE),
    )
    assert found == {"node1 uplink": PROBE, "node2 uplink": PROBE}


def test_the_answer_has_a_datagram_of_its_own() -> None:
    forth, back = datagram(5, len(PROBE)), datagram(9, len(ANSWER), THERE, HERE)
    found = carriers(
        seen("node1", 1, "flannel-wg", "out", PROBE),
        seen("node1", 2, "node1-eth0", "out", forth),
        seen("node2", 3, "flannel-wg", "out", ANSWER),
        seen("node2", 4, "node2-eth0", "out", back),
    )
    assert found == {"node1 node1-eth0": PROBE, "node2 node2-eth0": ANSWER}


def test_earlier_datagrams_handshakes_and_other_ports_are_none_of_its() -> None:
    elsewhere = ipv4(HERE, THERE, udp(PORT, 53, datagram(5, len(PROBE))[28:]))
    found = carriers(
        seen("node1", 1, "uplink", "out", datagram(3, len(PROBE))),
        seen("node1", 2, "flannel-wg", "out", PROBE),
        seen("node1", 3, "uplink", "out", datagram(5, len(PROBE), kind=1)),
        seen("node1", 4, "uplink", "out", elsewhere),
    )
    assert found == {}


def test_early_replies_are_kept_and_datagrams_of_others_are_dropped() -> None:
    sealed = datagram(5, len(PROBE))
    read = match_encrypted(
        [
            seen("node1", 1, "flannel-wg", "out", PROBE),
            seen("node1", 2, "uplink", "out", sealed),
            seen("node1", 3, "uplink", "out", datagram(6, len(PROBE))),
        ],
        WIREGUARD,
        {"flannel-wg"},
    )
    assert [(one.interface, one.sealed) for one in read] == [("flannel-wg", None), ("uplink", sealed)]
