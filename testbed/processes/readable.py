"""Waiting for descriptors. select(2) fails beyond 1,023, which the processes of a large lab have."""

import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], timeout_s: float | None = None) -> frozenset[int]:
    """Wait until one of these has something to read, or its end; return all that have, none after the time."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return frozenset(ready for ready, _ in poll.poll(None if timeout_s is None else timeout_s * 1000))
