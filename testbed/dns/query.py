"""One question to a name server, as a datagram: which serial has a zone? (RFC 1035 §4.1). Pure."""

import struct

SOA, IN = 6, 1
QUERY_BYTES = 512
_HEADER = struct.Struct("!6H")


class NotAnAnswer(ValueError):
    """The datagram does not answer the question; says why."""


def serial_question(zone: str, number: int) -> bytes:
    """The question; `number` comes back in the answer."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in zone.split("."))
    return _HEADER.pack(number, 0, 1, 0, 0, 0) + labels + struct.pack("!xHH", SOA, IN)


def serial_answer(question: bytes, answer: bytes) -> int:
    """The serial in the answer. Raises NotAnAnswer."""
    try:
        number, flags, _, count, _, _ = _HEADER.unpack_from(answer)
        if number != _HEADER.unpack_from(question)[0]:
            raise NotAnAnswer("an answer to another question")
        if flags & 0xF or not count:
            raise NotAnAnswer(f"response code {flags & 0xF}, {count} answers")
        # The question comes back whole; then its name as a pointer, type, class, TTL, length.
        kind, _, _, length = struct.unpack_from("!2xHHIH", answer, len(question))
        if kind != SOA:
            raise NotAnAnswer(f"a record of type {kind}")
        # Two names, then serial, refresh, retry, expire, minimum.
        start = len(question) + 12
        serial: int = struct.unpack_from("!I", answer, start + length - 20)[0]
    except struct.error as error:
        raise NotAnAnswer(f"cut off ({error})") from error
    return serial
