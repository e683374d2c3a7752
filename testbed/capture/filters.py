"""Socket filters in the kernel's classic BPF (linux/filter.h), written with labels. Pure.

An instruction is (code, jump if true, jump if false, operand); jumps count the instructions that are skipped.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

Instruction = tuple[int, int, int, int]

_INSTRUCTION = struct.Struct("=HBBI")
FARTHEST = 255  # a conditional jump's byte
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
WHOLE = 0x40000
"""Return value of a filter that keeps the whole packet."""
ANCILLARY = 0xFFFFF000  # SKF_AD_OFF
HARDWARE_TYPE = ANCILLARY + 28  # SKF_AD_HATYPE

CODES = {
    "ld": 0x20, "ldh": 0x28, "ldb": 0x30,  # from the packet, at the operand
    "ldx": 0x61, "ldm": 0x60, "st": 0x02, "stx": 0x03,  # scratch memory
    "ldi": 0x00, "ldxi": 0x01,
    "xld": 0x40, "xldh": 0x48, "xldb": 0x50,  # from the packet, at X and the operand
    "add": 0x04, "sub": 0x14, "and": 0x54, "lsh": 0x64, "rsh": 0x74, "addx": 0x0C,
    "tax": 0x07, "txa": 0x87,
    "ret": 0x06,
    "jmp": 0x05, "jeq": 0x15, "jgt": 0x25, "jge": 0x35,
}  # fmt: skip


class FilterError(ValueError):
    """A program that the kernel would refuse."""


@dataclass(slots=True)
class Assembler:
    """Collects instructions; jumps name labels, which may be defined later."""

    _lines: list[tuple[int, int, str | None, str | None]] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)
    _fresh: int = 0

    def do(self, name: str, operand: int = 0) -> None:
        """Add an instruction without a jump."""
        self._lines.append((CODES[name], operand & 0xFFFFFFFF, None, None))

    def jump(self, name: str, operand: int, yes: str | None = None, no: str | None = None) -> None:
        """Add a comparison of A with `operand`; None continues with the next instruction."""
        self._lines.append((CODES[name], operand & 0xFFFFFFFF, yes, no))

    def go(self, label: str) -> None:
        """Add an unconditional jump, of any distance."""
        self._lines.append((CODES["jmp"], 0, label, None))

    def label(self, name: str) -> None:
        """Name the next instruction `name`."""
        if name in self._labels:
            raise FilterError(f"two labels {name}")
        self._labels[name] = len(self._lines)

    def fresh(self, stem: str) -> str:
        """Return an unused label."""
        self._fresh += 1
        return f"{stem}#{self._fresh}"

    def program(self) -> list[Instruction]:
        """Return the instructions. Raises FilterError if the program is too long or jumps too far."""
        if len(self._lines) > MOST_INSTRUCTIONS:
            raise FilterError(f"a filter of {len(self._lines)} instructions (want at most {MOST_INSTRUCTIONS})")
        return [self._resolved(at, *line) for at, line in enumerate(self._lines)]

    def _resolved(self, at: int, code: int, operand: int, yes: str | None, no: str | None) -> Instruction:
        if code == CODES["jmp"]:
            return (code, 0, 0, self._distance(at, yes))
        true, false = self._distance(at, yes), self._distance(at, no)
        if max(true, false) > FARTHEST:
            raise FilterError(f"instruction {at} jumps over {max(true, false)} (want at most {FARTHEST})")
        return (code, true, false, operand)

    def _distance(self, at: int, label: str | None) -> int:
        if label is None:
            return 0
        distance = self._labels[label] - at - 1
        if distance < 0:
            raise FilterError(f"instruction {at} jumps back to {label}")
        return distance


def encode(program: Sequence[Instruction]) -> bytes:
    """Encode it for the kernel: an array of struct sock_filter."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def nothing() -> list[Instruction]:
    """Accept no packet."""
    return [(CODES["ret"], 0, 0, 0)]


def from_tcpdump(text: str) -> list[Instruction]:
    """Parse a program printed by `tcpdump -ddd`: the number of instructions, then each as four numbers."""
    lines = text.split("\n")
    try:
        count = int(lines[0])
        program = [(int(a), int(b), int(c), int(d)) for a, b, c, d in (line.split() for line in lines[1 : count + 1])]
    except ValueError as error:
        raise FilterError("not a program of tcpdump -ddd") from error
    if len(program) != count:
        raise FilterError("half a program of tcpdump -ddd")
    return program
