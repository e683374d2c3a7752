"""When a certificate ends, from its PEM file, by the standard library alone: DER as in X.690, fields as in RFC 5280."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
VERSION_TAG, UTC_TIME_TAG = 0xA0, 0x17
VALIDITY = 3
"""After serial number, algorithm and issuer."""
WARNED_BEFORE = timedelta(days=7)
WARNED_SHARE = 3
"""Of certificates that live for days: warned in the last third of their life."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate counts."""

    begins: datetime
    ends: datetime

    def ends_soon(self, now: datetime) -> bool:
        """Whether somebody should renew it now."""
        return self.ends - now < min(WARNED_BEFORE, (self.ends - self.begins) / WARNED_SHARE)


def read_validity(file: Path) -> Validity:
    """Of the first certificate in a PEM file. Raises OSError, and ValueError when it is none."""
    text = file.read_text(encoding="ascii", errors="replace")
    begin = text.find(BEGIN)
    if begin < 0 or (end := text.find(END, begin)) < 0:
        raise ValueError(f"{file}: no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(END)])
    try:
        ((_, certificate),) = _elements(der)
        fields = _elements(_elements(certificate)[0][1])
        first = 1 if fields[0][0] == VERSION_TAG else 0
        begins, ends = (_time(tag, content) for tag, content in _elements(fields[first + VALIDITY][1]))
    except (IndexError, ValueError) as error:
        raise ValueError(f"{file}: a damaged certificate ({error})") from error
    return Validity(begins, ends)


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents of what stands side by side."""
    found, at = [], 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            raise ValueError("cut short")
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _time(tag: int, content: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == UTC_TIME_TAG else "%Y%m%d%H%M%SZ"
    return datetime.strptime(content.decode("ascii"), form).replace(tzinfo=UTC)
