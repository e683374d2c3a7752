"""One query to a name server, as a datagram: the serial of a zone (RFC 1035 §4.1). Pure."""

import struct

SOA, IN = 6, 1
QUERY_BYTES = 512
_HEADER = struct.Struct("!6H")


class NotAnAnswer(ValueError):
    """The datagram does not answer the query; the message has the reason."""


def serial_question(zone: str, number: int) -> bytes:
    """Return the query; the answer repeats `number`."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in zone.split("."))
    return _HEADER.pack(number, 0, 1, 0, 0, 0) + labels + struct.pack("!xHH", SOA, IN)


def serial_answer(question: bytes, answer: bytes) -> int:
    """Return the serial from the answer. Raises NotAnAnswer."""
    try:
        number, flags, _, count, _, _ = _HEADER.unpack_from(answer)
        if number != _HEADER.unpack_from(question)[0]:
            raise NotAnAnswer("an answer to another question")
        if flags & 0xF or not count:
            raise NotAnAnswer(f"response code {flags & 0xF}, {count} answers")
        # The answer repeats the question; then its name as a pointer, type, class, TTL, length.
        kind, _, _, length = struct.unpack_from("!2xHHIH", answer, len(question))
        if kind != SOA:
            raise NotAnAnswer(f"a record of type {kind}")
        # Two names, then serial, refresh, retry, expire, minimum.
        start = len(question) + 12
        serial: int = struct.unpack_from("!I", answer, start + length - 20)[0]
    except struct.error as error:
        raise NotAnAnswer(f"cut off ({error})") from error
    return serial
