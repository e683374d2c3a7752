"""The time in people's format."""

from datetime import UTC, datetime


def now() -> str:
    """Return the current time as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
