"""Faults and the most that each may cost: one table that drives the tests and the soak. Pure.

A trial: heartbeats between all pods flow without loss; the faults are injected and last `hold_s`; they are healed;
within `limit_s` everything works again. `gap_s` limits the interruption meanwhile.
"""

from dataclasses import dataclass, replace

from testbed.faults.heartbeat_record import Pair

TTL_S = 5
"""TTL of leases in labs for trials, in seconds."""
OUT_S = TTL_S + 3.0
"""Longer than a lease lives without renewal, including its removal."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One row: what is done and what must hold."""

    row: str
    """Row in docs/reliability.md."""
    faults: tuple[str, ...]
    """Injected one after the other, healed together."""
    limit_s: float
    """From healing (without one: from the injection) until every pair's heartbeats arrive and the lab is ready."""
    hold_s: float = 0.0
    gap_s: float | None = None
    """The longest that any pair may go without a heartbeat, at any time; None: as long as the fault lasts."""
    mended_by_lab: bool = False
    """Not healed by the trial: the lab must recover by itself."""
    share_lost: float = 1.0
    """Of all heartbeats while the fault is active."""
    untouched: frozenset[Pair] | None = None
    """Pairs that may lose nothing; None: no such pair."""
    keeps_subnets: bool = True
    prepare: tuple[str, ...] = ()
    """Injected before the measurement, and healed with the others; the gap is then measured up to the healing."""
    says: str = "(?!)"
    """The expected lines among the agents' errors and warnings (a regular expression)."""
    etcd_members: int = 1
    slow: bool = True
    """Omitted from quick runs."""
    faults_again: tuple[str, ...] | None = None
    hold_again_s: float | None = None
    """Other faults and durations for a repetition: recovery is measured each time, endurance once."""

    @property
    def name(self) -> str:
        """Return the name for people: row and words."""
        return f"{self.row} {' + '.join(self.faults)}".rstrip()

    @property
    def again(self) -> "Trial":
        """Return the trial of a repetition."""
        faults = self.faults if self.faults_again is None else self.faults_again
        return replace(self, faults=faults, hold_s=self.hold_s if self.hold_again_s is None else self.hold_again_s)


TRIALS = (
    Trial("F1", ("agent stop node1",), 5, gap_s=3, slow=False),
    Trial("F2", ("agent kill node1",), 5, gap_s=3, slow=False),
    Trial(
        "F3",
        ("agent crashloop node1 20 3s",),
        5,
        hold_s=60.5,
        faults_again=("agent crashloop node1 3 2s",),
        hold_again_s=7,
    ),
    Trial("F4", ("agent stop node1",), 3, hold_s=OUT_S),
    Trial("F6", ("agent pause node1",), 3, hold_s=2 * TTL_S),
    Trial("F7", ("agent kill node1", "agent kill node2", "agent kill node3"), 10),
    Trial("F8", ("agent hang node1",), 20, gap_s=3, mended_by_lab=True, says="loop stalled"),
    Trial("F11", ("etcd kill follower",), 3, gap_s=0, etcd_members=3),
    Trial("F12", ("etcd kill leader",), 3, gap_s=0, hold_s=2, etcd_members=3),
    Trial("F13", ("etcd stop etcd1", "etcd stop etcd2"), 3, gap_s=0, hold_s=60, etcd_members=3, hold_again_s=2 * TTL_S),
    Trial("F14", ("etcd stop etcd1",), 5, gap_s=0, hold_s=6 * TTL_S, hold_again_s=2 * TTL_S),
    Trial("F15", ("etcd wipe etcd1",), 5, gap_s=0, hold_s=3),
    Trial(
        "F16",
        ("lease delete node1", "lease delete node2", "etcd restore etcd1"),
        5,
        hold_s=1,
        prepare=("etcd snapshot etcd1",),
    ),
    Trial("F17", ("etcd quota etcd1",), 3, gap_s=0, hold_s=3 * TTL_S, hold_again_s=TTL_S + 1),
    Trial("F18", ("link delay etcd1 s1 1s",), 5, gap_s=0, hold_s=2 * TTL_S),
    # A new agent must write subnet.env and cannot.
    Trial("F19", ("disk full node1", "agent kill node1"), 5, hold_s=3),
    Trial("F20", ("etcd compact",), 3, gap_s=0),
    Trial("F21", ("partition node1 / etcd1", "etcd compact"), 5, gap_s=0, hold_s=2),
    Trial("F22", ("lease revoke node1",), 3),
    Trial("F23", ("lease delete node1",), 3),
    Trial("F27", ("link down node1 s1",), 2, hold_s=5, hold_again_s=2),
    Trial(
        "F28",
        ("link flap node1 s1 100 200ms",),
        2,
        hold_s=21,
        faults_again=("link flap node1 s1 20 200ms",),
        hold_again_s=5,
    ),
    Trial("F29", ("partition node1",), 5, hold_s=2),
    Trial("F30", ("partition node1",), 5, hold_s=OUT_S),
    Trial("F31", ("partition node1 / etcd1",), 5, hold_s=OUT_S),
    Trial("F32", ("oneway node1 / node2,node3",), 5, hold_s=3),
    Trial(
        "F33",
        (
            "link loss node1 s1 30",
            "link delay node1 s1 100ms 50ms",
            "link duplicate node1 s1 5",
            "link reorder node1 s1 10",
        ),
        5,
        hold_s=5,
        share_lost=0.6,
    ),
    Trial("F34", ("link corrupt node1 s1 1",), 5, hold_s=5, share_lost=0.2),
    Trial("F35", ("node reboot node1 1s",), 10, mended_by_lab=True),
    # Longer than its lease lives, and its disk is empty afterwards.
    Trial("F35", ("node crash node1",), 10, hold_s=OUT_S),
    Trial("F36", ("node readdress node1 192.168.8.150",), 5, mended_by_lab=True),
    Trial("F39", ("clock jump node1 1h",), 6, hold_s=OUT_S, gap_s=0, prepare=("clock jump node1 0s",)),
    Trial("F39", ("clock jump node1 -1h",), 6, hold_s=OUT_S, gap_s=0, prepare=("clock jump node1 0s",)),
    Trial("F40", ("certificate expire node1",), 5, hold_s=OUT_S),
    Trial("F40", ("certificate rotate node1", "etcd kill etcd1"), 5, gap_s=0),
    Trial("F41", ("device delete node1",), 5),
    Trial("F41", ("rules flush node1",), 5),
    Trial("F42", ("pod kill shell1",), 5, untouched=frozenset({("shell2", "shell3"), ("shell3", "shell2")})),
)
CONTROL = Trial("control", (), 5, hold_s=2, gap_s=0, slow=False)
"""Without a fault, so without losses: heartbeats that distinguish a fault from a slow machine."""
