"""A limit on how often something may happen. Pure: time is an argument."""


class TokenBucket:
    """`rate_per_s` in the long run, `burst` at once."""

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Full at `now_s`, a time on the clock that `take` will be given."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether it may happen now; if so, it counts."""
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate_per_s)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
