"""What still keeps the agent from being ready: every part says so itself, readers see all reasons at once."""

import threading
from collections.abc import Sequence


class Readiness:
    """Named parts, each in order or with a reason why not; usable from several threads."""

    def __init__(self, parts: Sequence[str]) -> None:
        """Every part begins as not done yet."""
        self._lock = threading.Lock()
        self._reasons: dict[str, str | None] = {part: "not yet" for part in parts}

    def fulfilled(self, part: str) -> bool:
        """Note that `part` is in order; whether it was not before."""
        return self._set(part, None)

    def lacking(self, part: str, why: str) -> bool:
        """Note why `part` is not in order; whether that is news."""
        return self._set(part, why)

    def reasons(self) -> tuple[str, ...]:
        """`part: why not` for everything that is not in order; empty means ready."""
        with self._lock:
            return tuple(f"{part}: {why}" for part, why in self._reasons.items() if why is not None)

    def _set(self, part: str, why: str | None) -> bool:
        with self._lock:
            if part not in self._reasons:
                raise KeyError(part)
            news = self._reasons[part] != why
            self._reasons[part] = why
            return news
