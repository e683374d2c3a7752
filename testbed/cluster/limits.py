"""A container's limits as numbers for the kernel. Light: `down` loads it, without the models of manifests."""

from dataclasses import dataclass

PERIOD_US = 100_000
LEAST_QUOTA_US = 1000
"""The kernel's own (kernel/sched/core.c, min_cfs_quota_period)."""
SHARES_OF_A_CPU = 1024
LEAST_SHARES, MOST_SHARES = 2, 262_144
"""The kernel's own (MIN_SHARES, MAX_SHARES)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that the kernel enforces on a container."""

    memory: int | None = None
    """Bytes."""
    cpu_quota_us: int | None = None
    """Processor time in each PERIOD_US."""
    cpu_shares: int | None = None
    """Weight when the CPU is busy; a whole CPU is SHARES_OF_A_CPU."""
