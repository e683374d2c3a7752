"""The time as people read it."""

from datetime import UTC, datetime


def now() -> str:
    """The present moment as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
