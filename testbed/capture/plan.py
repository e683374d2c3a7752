"""What a capture listens to: determined in the lab, passed to the recorder as JSON. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from testbed.capture.filters import ANCILLARY, CODES, HARDWARE_TYPE, WHOLE, Assembler, Instruction
from testbed.capture.headers import NO_OVERLAY, Encapsulation
from testbed.capture.packet_socket import ARPHRD_ETHER, ARPHRD_LOOPBACK

INTERFACE_INDEX = ANCILLARY + 8  # SKF_AD_IFINDEX
LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class CapturePoint:
    """One network namespace."""

    place: str
    pid: int | None
    """A process inside; None: the recorder's own namespace, which is the lab's."""
    interfaces: tuple[str, ...] | None
    """The requested ones; None: all but the loopback, including later ones."""
    labels: tuple[tuple[str, str], ...] = ()
    """Interface → its usual name, if that is not simply `PLACE:INTERFACE`."""

    def wants(self, interface: str) -> bool:
        """Report whether the interface is requested."""
        return interface != LOOPBACK if self.interfaces is None else interface in self.interfaces

    def point(self, interface: str) -> str:
        """Return its usual name: `node1:uplink`, `nginx:eth0`, `s1:s1-eth1`."""
        return dict(self.labels).get(interface, f"{self.place}:{interface}")


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """A whole capture."""

    listening: tuple[CapturePoint, ...]
    overlay: Encapsulation = NO_OVERLAY
    ethernet_filter: tuple[Instruction, ...] = ()
    """From tcpdump; empty: everything."""
    raw_filter: tuple[Instruction, ...] = ()
    """The same for interfaces without a link header."""
    cut: bool = True
    """False: super-packets are not cut."""
    count: int | None = None
    """Packets after which to stop."""
    seconds: float | None = None
    text: bool = False
    """Lines instead of pcapng."""
    replace: bool = False
    """The output is a file whose former content goes when the capture begins."""

    def to_json(self) -> str:
        """Serialize it for the recorder's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "CapturePlan":
        """Parse the result of `to_json`."""
        value = json.loads(text)
        value["listening"] = tuple(
            CapturePoint(
                one["place"],
                one["pid"],
                None if one["interfaces"] is None else tuple(one["interfaces"]),
                tuple((interface, label) for interface, label in one["labels"]),
            )
            for one in value["listening"]
        )
        overlay = value["overlay"]
        value["overlay"] = Encapsulation(**overlay | {"sealed_ports": tuple(overlay["sealed_ports"])})
        for name in ("ethernet_filter", "raw_filter"):
            value[name] = tuple((a, b, c, d) for a, b, c, d in value[name])
        return cls(**value)


def kernel_filter(plan: CapturePlan, unwanted: Sequence[int]) -> list[Instruction]:
    """Refuse interfaces by index, then apply tcpdump's program for the kind of interface.

    Only existing, unwanted ones are refused; later ones are checked by name.
    """
    code = Assembler()
    if unwanted:
        code.do("ld", INTERFACE_INDEX)
        for index in unwanted:
            following = code.fresh("next")
            code.jump("jeq", index, None, following)
            code.do("ret", 0)
            code.label(following)
    if not plan.ethernet_filter:
        code.do("ret", WHOLE)
        return code.program()
    return [
        *code.program(),
        (CODES["ld"], 0, 0, HARDWARE_TYPE),
        (CODES["jeq"], 1, 0, ARPHRD_ETHER),
        (CODES["jeq"], 0, 1, ARPHRD_LOOPBACK),
        (CODES["jmp"], 0, 0, len(plan.raw_filter)),
        *plan.raw_filter,
        *plan.ethernet_filter,
    ]
