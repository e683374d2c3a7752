"""The fate of numbered heartbeats between pods: gaps, losses, damage. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]
"""Source and destination."""
FLIGHT_S = 1.0
"""A heartbeat younger than this may still arrive."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without an arrival although heartbeats were sent."""

    seconds: float
    pair: Pair | None
    """Its pair; None if nothing was lost."""

    def __str__(self) -> str:
        where = "" if self.pair is None else f" from {self.pair[0]} to {self.pair[1]}"
        return f"{self.seconds:.1f} s{where}"


@dataclass
class HeartbeatRecord:
    """A record that grows with the sender's lines; times are seconds of CLOCK_MONOTONIC."""

    pods: tuple[str, ...]
    period_s: float
    sent_at: dict[int, float] = field(default_factory=dict)
    arrivals: dict[Pair, dict[int, list[float]]] = field(default_factory=dict)
    damaged: int = 0
    """Heartbeats that arrived with altered contents."""

    def __post_init__(self) -> None:
        self.arrivals = {(one, other): {} for one in self.pods for other in self.pods if one != other}

    def add(self, line: Mapping[str, Any]) -> None:
        """Add one line of the sender."""
        self.sent_at[line["number"]] = line["at"]
        for source, destination, number, at, whole in line["got"]:
            if not whole:
                self.damaged += 1
            elif (source, destination) in self.arrivals:
                self.arrivals[source, destination].setdefault(number, []).append(at)

    def forget(self, pods: Collection[str]) -> None:
        """Ignore heartbeats from and to these pods from now on: they were deleted."""
        self.arrivals = {pair: arrived for pair, arrived in self.arrivals.items() if not set(pair) & set(pods)}

    @property
    def newest(self) -> float:
        """Return when the last heartbeats with a known fate were sent."""
        return max(self.sent_at.values(), default=0.0) - FLIGHT_S

    def lost(self, since: float, until: float, pairs: set[Pair] | None = None) -> dict[Pair, list[float]]:
        """Return when the lost ones were sent, by pair; pairs without a loss are omitted."""
        numbers = self._numbers(since, until)
        found = {
            pair: [self.sent_at[number] for number in numbers if number not in arrived]
            for pair, arrived in self.arrivals.items()
            if pairs is None or pair in pairs
        }
        return {pair: times for pair, times in found.items() if times}

    def longest_gap(self, since: float, until: float) -> Gap:
        """Return the longest of all pairs: from the last heartbeat that arrived before to the first after it, less a
        period.
        """
        worst = Gap(0.0, None)
        for pair in self.lost(since, until):
            arrived = self.arrivals[pair]
            last = since
            for number in self._numbers(since, until):
                if number in arrived:
                    last = self.sent_at[number]
                elif self.sent_at[number] - last > worst.seconds:
                    worst = Gap(self.sent_at[number] - last, pair)
        return worst

    def recovered_after(self, moment: float, until: float) -> Gap:
        """Return how long after `moment` the last lost heartbeat was sent."""
        worst = Gap(0.0, None)
        for pair, times in self.lost(moment, until).items():
            if times[-1] - moment + self.period_s > worst.seconds:
                worst = Gap(times[-1] - moment + self.period_s, pair)
        return worst

    def share_lost(self, since: float, until: float) -> float:
        """Return the share of all heartbeats sent in between, 0 to 1."""
        sent = len(self._numbers(since, until)) * len(self.arrivals)
        return sum(map(len, self.lost(since, until).values())) / sent if sent else 0.0

    def _numbers(self, since: float, until: float) -> list[int]:
        return [number for number, at in self.sent_at.items() if since <= at <= until]
