"""Order and timeline of sightings: pure parts of `testbed trace`."""

from testbed.capture.headers import Encapsulation, unwrap
from testbed.trace.order import in_order
from testbed.trace.recognise import Mark, Recogniser, Role
from testbed.trace.timeline import Timeline, build_timeline
from testbed.trace.watch import Sighting
from tests.dual_stack_frames import (
    CARRIED_ECHO,
    CARRIED_ERROR,
    CARRIED_SYN,
    ECHO,
    ECHO_COOKIE,
    ETHERNET,
    LOST_COOKIE,
    SYN_COOKIE,
)
from tests.packets import ipv4, ipv6, tcp, udp

FLANNEL = Encapsulation("udp", 8285)
VXLAN = Encapsulation("vxlan", 8472)
COOKIE = 1000
SYN, SYN_ACK = 0x02, 0x12
CABLES = {("a", "eth0"): ("n", "vetha"), ("n", "vetha"): ("a", "eth0")}


def request(
    source: str = "10.0.1.2", destination: str = "10.0.2.2", *, identification: int = 7, ttl: int = 64
) -> bytes:
    segment = tcp(COOKIE, ports=(2379, 8080), acknowledgement=0, flags=SYN)
    return ipv4(source, destination, segment, protocol=6, identification=identification, ttl=ttl)


def answer(source: str = "10.0.2.2", destination: str = "10.0.1.2") -> bytes:
    segment = tcp(55, ports=(8080, 2379), acknowledgement=COOKIE + 1, flags=SYN_ACK)
    return ipv4(source, destination, segment, protocol=6, identification=0)


def sighting(
    place: str, interface: str, direction: str, at_ns: int, frame: bytes, *, number: int = 0, other: bool = False
) -> Sighting:
    (wrapped,) = unwrap(frame, 0, FLANNEL)
    return Sighting(place, number, at_ns, interface, direction == "out", other, 65534, frame, 0, wrapped)


def timeline_of(*seen: Sighting) -> Timeline:
    return build_timeline(in_order(seen, CABLES), Recogniser(Mark("tcp", COOKIE)), CABLES, frozenset({"vetha"}))


def shown(timeline: Timeline) -> list[tuple[str, str]]:
    return [(step.sighting.interface, step.role.value) for step in timeline.steps]


def test_equal_stamps_are_ordered_by_position() -> None:
    seen = (
        sighting("n", "docker0", "in", 100, request(), number=2),
        sighting("n", "vetha", "in", 100, request(), number=1),
        sighting("a", "eth0", "out", 100, request(), number=1),
    )
    assert [interface for interface, _ in shown(timeline_of(*seen))] == ["eth0", "vetha", "docker0"]


def test_stamps_that_run_backwards_over_a_cable_do_not_turn_it_round() -> None:
    seen = (
        sighting("n", "vetha", "in", 99, request(), number=1),
        sighting("a", "eth0", "out", 100, request(), number=1),
    )
    assert [interface for interface, _ in shown(timeline_of(*seen))] == ["eth0", "vetha"]


def test_carried_request_and_answer_are_the_same_packets_as_plain_ones() -> None:
    wrapped = ipv4("192.168.8.1", "192.168.8.2", udp(8285, 8285, request(ttl=63)))
    timeline = timeline_of(
        sighting("a", "eth0", "out", 1, request(), number=1),
        sighting("n", "uplink", "out", 2, wrapped, number=1),
        sighting("n", "flannel0", "in", 3, answer(), number=2),
    )
    assert shown(timeline) == [("eth0", "request"), ("uplink", "request"), ("flannel0", "reply")]


def test_translated_addresses_do_not_hide_it() -> None:
    timeline = timeline_of(
        sighting("a", "eth0", "out", 1, request(destination="10.96.0.1"), number=1),
        sighting("n", "eth1", "out", 2, request("192.168.8.1", "10.0.2.2", ttl=63), number=1),
        sighting("n", "eth1", "in", 3, answer("10.0.2.2", "192.168.8.1"), number=2),
        sighting("a", "eth0", "in", 4, answer("10.96.0.1"), number=2),
    )
    assert [role for _, role in shown(timeline)] == ["request", "request", "reply", "reply"]


def test_retransmitted_packet_is_counted_and_not_shown_twice() -> None:
    timeline = timeline_of(
        sighting("a", "eth0", "out", 1, request(), number=1),
        sighting("a", "eth0", "out", 9, request(identification=8), number=2),
    )
    assert shown(timeline) == [("eth0", "request")]
    assert timeline.again == 1


def test_copy_for_another_machine_is_a_stray() -> None:
    timeline = timeline_of(
        sighting("a", "eth0", "out", 1, request(), number=1),
        sighting("b", "eth0", "in", 2, request(), number=1, other=True),
        sighting("c", "eth0", "in", 3, request(), number=1),
    )
    assert [step.sighting.place for step in timeline.steps] == ["a", "c"]
    assert [step.sighting.place for step in timeline.strays] == ["b"]


def test_other_connections_are_not_the_probes() -> None:
    recogniser = Recogniser(Mark("tcp", COOKIE))
    strange = ipv4("10.0.1.9", "10.0.2.9", tcp(COOKIE + 5, b"load"), protocol=6)
    (wrapped,) = unwrap(strange, 0, FLANNEL)
    assert recogniser.role(strange, wrapped.inner) is None


def test_udp_answers_are_known_by_their_turned_addresses() -> None:
    recogniser = Recogniser(Mark("udp", 0x61626364))
    forth = ipv4("10.0.1.2", "10.0.2.2", udp(40000, 53, b"abcd"))
    back = ipv4("10.0.2.2", "10.0.1.2", udp(53, 40000, b"something else"))
    roles = [recogniser.role(frame, next(unwrap(frame, 0, FLANNEL)).inner) for frame in (forth, back)]
    assert roles == [Role.REQUEST, Role.REPLY]


def role_in(frame: bytes, recogniser: Recogniser) -> Role | None:
    (wrapped,) = unwrap(frame, ETHERNET, VXLAN)
    return recogniser.role(frame, wrapped.inner)


def test_ipv6_probes_are_known_plain_and_carried() -> None:
    echo = Recogniser(Mark("icmp", ECHO_COOKIE, version=6))
    assert [role_in(frame, echo) for frame in (ECHO, CARRIED_ECHO, CARRIED_SYN)] == [Role.REQUEST, Role.REQUEST, None]
    assert role_in(CARRIED_SYN, Recogniser(Mark("tcp", SYN_COOKIE, version=6))) is Role.REQUEST
    assert role_in(ECHO, Recogniser(Mark("icmp", ECHO_COOKIE))) is None, "that one is IPv4's"


def test_an_ipv6_error_is_about_the_probe_whose_payload_it_quotes() -> None:
    quoted = CARRIED_ERROR[-104:]  # the echo request behind the error's 8 bytes
    for cookie, expected in ((LOST_COOKIE, Role.ERROR), (LOST_COOKIE + 1, None)):
        recogniser = Recogniser(Mark("icmp", cookie, version=6))
        sent = quoted[:48] + cookie.to_bytes(4, "big") + quoted[52:]
        assert role_in(bytes(ETHERNET) + sent, recogniser) is Role.REQUEST
        assert role_in(CARRIED_ERROR, recogniser) is expected


def test_an_ipv6_error_about_the_answer_is_distinguished_from_one_about_the_request() -> None:
    recogniser = Recogniser(Mark("icmp", ECHO_COOKIE, version=6))
    request = ECHO[ETHERNET:]
    echoed = b"\x81" + request[41:]
    answer = ipv6("fd00:a:0:90::2", "fd00:a:0:46::3", echoed, protocol=58)
    error = ipv6("fd00:a:0:46::1", "fd00:a:0:90::2", bytes([1, 0, 0, 0, 0, 0, 0, 0]) + answer, protocol=58)
    roles = [role_in(bytes(ETHERNET) + packet, recogniser) for packet in (request, answer, error)]
    assert roles == [Role.REQUEST, Role.REPLY, Role.REPLY_ERROR]
