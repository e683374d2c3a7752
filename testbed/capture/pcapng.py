"""The pcapng format (draft-ietf-opsawg-pcapng), as far as a capture needs it: sections, interfaces, packets. Pure.

Unlike classic pcap it names the interface of each packet, so that one file holds a whole lab.
"""

import struct
from collections.abc import Iterable

SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS, ENHANCED_PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101
NANOSECONDS = 9
"""If_tsresol: ten to the minus ninth."""
INBOUND, OUTBOUND = 1, 2
COMMENT, USER_APPLICATION = 1, 4
INTERFACE_NAME, INTERFACE_DESCRIPTION_TEXT, INTERFACE_RESOLUTION = 2, 3, 9
PACKET_FLAGS = 2
RECEIVED = 4
APPLICATION = "overlay-testbed"

Option = tuple[int, bytes]


def section_header() -> bytes:
    """Return the start of a file."""
    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(SECTION_HEADER, body, [(USER_APPLICATION, APPLICATION.encode())])


def interface(name: str, link_type: int, description: str = "") -> bytes:
    """Return the block of the next interface; packets refer to its number, from 0 in the order of writing."""
    options = [(INTERFACE_NAME, name.encode()), (INTERFACE_RESOLUTION, bytes([NANOSECONDS]))]
    if description:
        options.append((INTERFACE_DESCRIPTION_TEXT, description.encode()))
    return _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0), options)


def packet(number: int, at_ns: int, frame: bytes, *, outgoing: bool) -> bytes:
    """Return the block of one whole packet of the interface with that number."""
    head = struct.pack("<IIIII", number, at_ns >> 32, at_ns & 0xFFFFFFFF, len(frame), len(frame))
    flags = struct.pack("<I", OUTBOUND if outgoing else INBOUND)
    return _block(ENHANCED_PACKET, head + _padded(frame), [(PACKET_FLAGS, flags)])


def statistics(number: int, at_ns: int, received: int, comment: str = "") -> bytes:
    """Return an interface's packet count, for the end of a capture."""
    options: list[Option] = [(RECEIVED, struct.pack("<Q", received))]
    if comment:
        options.insert(0, (COMMENT, comment.encode()))
    return _block(INTERFACE_STATISTICS, struct.pack("<III", number, at_ns >> 32, at_ns & 0xFFFFFFFF), options)


def _block(kind: int, body: bytes, options: Iterable[Option]) -> bytes:
    body += b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    body += bytes(4)  # opt_endofopt
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
