"""Classic BPF programs: labels, limits, and the probe's filter on real packets, in an interpreter of our own."""

import struct

import pytest

from testbed.capture.filters import CODES, WHOLE, Assembler, FilterError, Instruction, from_tcpdump
from testbed.capture.headers import NO_OVERLAY, Encapsulation
from testbed.capture.plan import CapturePlan, CapturePoint, kernel_filter
from testbed.trace.packet_filter import probe_filter
from testbed.trace.recognise import Mark
from tests.dual_stack_frames import CARRIED_ECHO, CARRIED_ERROR, CARRIED_SYN, ECHO, ECHO_COOKIE, REPORT, SYN_COOKIE
from tests.packets import ipv4, ipv6, tcp, udp

ETHERNET = bytes(12) + b"\x08\x00"
ARPHRD_ETHER, ARPHRD_NONE = 1, 65534
NAMES = {code: name for name, code in CODES.items()}
FLANNEL = Encapsulation("udp", 8285)
VXLAN = Encapsulation("vxlan", 8472)
COOKIE = 0xCAFE0001
TCP = Mark("tcp", COOKIE)


def run(program: list[Instruction], frame: bytes, hardware_type: int = ARPHRD_ETHER, index: int = 7) -> int:
    """Return what the kernel's interpreter would return (linux/filter.h); a load beyond the end refuses the frame."""
    a = x = at = 0
    memory = [0] * 16
    for _ in range(len(program)):
        code, yes, no, k = program[at]
        name = NAMES[code]
        at += 1
        if name == "ret":
            return k
        if name in ("ld", "ldh", "ldb", "xld", "xldh", "xldb"):
            if k >= 0xFFFFF000:
                a = {0xFFFFF000 + 28: hardware_type, 0xFFFFF000 + 8: index}[k]
                continue
            size, place = {"d": 4, "h": 2, "b": 1}[name[-1]], k + (x if name[0] == "x" else 0)
            if place + size > len(frame):
                return 0
            a = int.from_bytes(frame[place : place + size], "big")
        elif name in ("jeq", "jgt", "jge"):
            true = {"jeq": a == k, "jgt": a > k, "jge": a >= k}[name]
            at += yes if true else no
        elif name == "jmp":
            at += k
        elif name == "st":
            memory[k] = a
        else:
            a, x = {
                "ldi": (k, x), "ldm": (memory[k % 16], x), "ldx": (a, memory[k % 16]), "tax": (a, a), "txa": (x, x),
                "add": (a + k, x), "sub": (a - k, x), "addx": (a + x, x), "and": (a & k, x),
                "lsh": (a << k % 32, x), "rsh": (a >> k % 32, x),
            }[name]  # fmt: skip
            a &= 0xFFFFFFFF
    raise AssertionError("the program has no end")


def carried(*inner: bytes) -> bytes:
    return ipv4("192.168.8.1", "192.168.8.2", udp(8285, 8285, b"".join(inner)))


def packet(sequence: int, acknowledgement: int = 0) -> bytes:
    return ipv4("10.0.1.2", "10.0.2.2", tcp(sequence, acknowledgement=acknowledgement, flags=0x02), protocol=6)


STRANGER = packet(5)
OURS = packet(COOKIE)
QUOTE = ipv4("10.0.1.1", "10.0.1.2", struct.pack("!BBHI", 3, 0, 0, 0) + OURS[:28], protocol=1)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (OURS, True),
        (packet(0, COOKIE + 1), True),
        (packet(COOKIE + 0x10000), False),
        (STRANGER, False),
        (QUOTE, True),
        (carried(OURS), True),
        (carried(STRANGER), False),
        (carried(*[STRANGER] * 40, OURS), True),
        (carried(*[STRANGER] * 41), False),
        (ipv4("10.0.1.2", "10.0.2.2", OURS[20:], protocol=6, flags_and_offset=3), False),
        (b"\x45", False),
    ],
    ids=[
        "the probe",
        "its answer",
        "beyond its window",
        "another's",
        "an error",
        "carried",
        "another's carried",
        "the last of many carried",
        "none of many carried",
        "a later fragment",
        "a stump",
    ],
)
def test_probe_is_distinguished_from_the_rest(frame: bytes, found: bool) -> None:
    program = probe_filter(TCP, FLANNEL)
    assert run(program, ETHERNET + frame) == (WHOLE if found else 0)
    assert run(program, frame, ARPHRD_NONE) == (WHOLE if found else 0)


def test_probe_is_found_in_vxlan_and_ipip() -> None:
    vxlan = ipv4("192.168.8.1", "192.168.8.2", udp(40000, 8472, bytes(8) + ETHERNET + OURS))
    assert run(probe_filter(TCP, VXLAN), ETHERNET + vxlan) == WHOLE
    assert run(probe_filter(TCP, NO_OVERLAY), ETHERNET + vxlan) == 0
    ipip = ipv4("192.168.8.1", "192.168.8.2", OURS, protocol=4)
    assert run(probe_filter(TCP, Encapsulation("ipip")), ETHERNET + ipip) == WHOLE


@pytest.mark.parametrize(
    ("mark", "found"),
    [
        (Mark("icmp", ECHO_COOKIE, version=6), (ECHO, CARRIED_ECHO, CARRIED_ERROR)),
        (Mark("tcp", SYN_COOKIE, version=6), (CARRIED_SYN, CARRIED_ERROR)),
        (Mark("udp", 1, (40000, 53), version=6), (CARRIED_ERROR,)),
        (Mark("icmp", ECHO_COOKIE), ()),
    ],
    ids=["echo", "connection", "another's", "IPv4"],
)
def test_ipv6_is_looked_at_as_ipv4_is(mark: Mark, found: tuple[bytes, ...]) -> None:
    frames = (ECHO, CARRIED_ECHO, CARRIED_SYN, CARRIED_ERROR, REPORT)
    program = probe_filter(mark, VXLAN)
    assert tuple(frame for frame in frames if run(program, frame)) == found
    # Nobody looks into datagrams where there is no overlay.
    assert {frame for frame in frames if run(probe_filter(mark, NO_OVERLAY), frame)} <= {ECHO}


def test_of_an_ipv6_packet_in_fragments_the_first_is_found() -> None:
    program = probe_filter(Mark("tcp", COOKIE, version=6), FLANNEL)
    for place, found in ((1, True), (0x100, False)):
        extension = struct.pack("!BBHI", 6, 0, place, 77)
        frame = ipv6("fd00::1", "fd00::2", tcp(COOKIE, flags=0x02), extension=extension)
        assert run(program, bytes(12) + b"\x86\xdd" + frame) == (WHOLE if found else 0)
        assert run(program, frame, ARPHRD_NONE) == (WHOLE if found else 0)


def test_sealed_datagrams_between_ipv6_addresses_may_carry_either() -> None:
    sealed = ipv6("fd00:8::1", "fd00:8::2", udp(51820, 51820, bytes(32 + 112)))
    for mark in (TCP, Mark("tcp", COOKIE, version=6)):
        program = probe_filter(mark, Encapsulation("none", sealed_ports=(51820, 51821)), largest=100)
        assert run(program, bytes(12) + b"\x86\xdd" + sealed) == WHOLE


def test_sealed_datagrams_are_accepted_up_to_the_size_of_the_probes() -> None:
    program = probe_filter(TCP, Encapsulation("none", sealed_ports=(51820, 51821)), largest=100)
    for length, found in ((32 + 112, True), (32 + 128, False)):
        sealed = ipv4("192.168.8.1", "192.168.8.2", udp(51820, 51820, bytes(length)))
        assert run(program, ETHERNET + sealed) == (WHOLE if found else 0)
    assert run(program, ETHERNET + OURS) == WHOLE
    assert run(program, ETHERNET + STRANGER) == 0
    assert run(program, ETHERNET + ipv4("192.168.8.1", "192.168.8.2", udp(51820, 53, bytes(100)))) == 0


def test_udp_answers_without_the_cookie_are_found_by_their_port() -> None:
    program = probe_filter(Mark("udp", COOKIE, (40000, 53)), FLANNEL)
    answer = ipv4("10.0.2.2", "10.0.1.2", udp(53, 40000, b"an answer"))
    assert run(program, ETHERNET + carried(answer)) == WHOLE
    assert run(program, ETHERNET + ipv4("10.0.2.2", "10.0.1.2", udp(54, 40001, b"no answer"))) == 0


def test_frames_that_are_no_ip_are_refused() -> None:
    assert run(probe_filter(TCP, FLANNEL), bytes(12) + b"\x08\x06" + OURS) == 0


def test_capture_refuses_unwanted_interfaces_and_chooses_the_program_by_their_kind() -> None:
    accept, refuse = ((0x06, 0, 0, WHOLE),), ((0x06, 0, 0, 0),)
    plan = CapturePlan((CapturePoint("node1", 1, ("flannel0",)),), ethernet_filter=accept, raw_filter=refuse)
    program = kernel_filter(plan, [3, 4])
    assert run(program, OURS, index=4) == 0
    assert run(program, OURS, index=5) == WHOLE
    assert run(program, OURS, ARPHRD_NONE, index=5) == 0


def test_plan_survives_the_transfer_to_the_recorder() -> None:
    plan = CapturePlan(
        (CapturePoint("lab", None, None, (("s1-eth1", "s1:s1-eth1"),)),),
        FLANNEL,
        ((6, 0, 0, 0),),
        count=3,
        replace=True,
    )
    assert CapturePlan.from_json(plan.to_json()) == plan


def test_programs_that_the_kernel_would_refuse_are_not_made() -> None:
    far = Assembler()
    far.jump("jeq", 1, "end")
    for _ in range(300):
        far.do("tax")
    far.label("end")
    far.do("ret")
    with pytest.raises(FilterError, match="jumps over"):
        far.program()


@pytest.mark.parametrize("text", ["", "2\n6 0 0 0\n", "x\n"])
def test_output_other_than_tcpdumps_is_no_program(text: str) -> None:
    with pytest.raises(FilterError):
        from_tcpdump(text)
