"""What a cable does to its packets: as arguments of netem, as nftables rules, and as commands for our own shim.

Pure.
"""

from dataclasses import asdict, dataclass

REORDER_DELAY_MS = 10.0
"""Delay of packets that are not sent ahead if no delay was requested: netem needs one to reorder."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """Impairments in each direction; percentages of packets, times in milliseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    """Packets with one flipped bit."""
    reorder: float = 0.0
    """Packets sent at once, while the others wait."""
    delay: float = 0.0
    jitter: float = 0.0

    @property
    def is_none(self) -> bool:
        """Return whether the cable is perfect."""
        return self == Impairment()

    @property
    def only_loses(self) -> bool:
        """Return whether it only loses packets."""
        return bool(self.loss) and self == Impairment(loss=self.loss)

    @property
    def waits_ms(self) -> float:
        """Return how long a packet waits."""
        return self.delay or (REORDER_DELAY_MS if self.reorder else 0.0)

    def orders(self) -> dict[str, float]:
        """Return the commands for the shim."""
        return {**asdict(self), "delay": self.waits_ms}


def netem_arguments(impairment: Impairment) -> list[str]:
    """Return the arguments after `netem` on tc's command line."""
    words = []
    if impairment.waits_ms:
        words += ["delay", f"{impairment.waits_ms:g}ms"]
        words += [f"{impairment.jitter:g}ms"] if impairment.jitter else []
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        percent = getattr(impairment, name)
        words += [name, f"{percent:g}%"] if percent else []
    return words


def loss_script(table: str, interface: str, percent: float) -> str:
    """Return a script for nft that drops this share of the packets that arrive on an interface."""
    return (
        f'table netdev {table} {{\n chain in {{\n  type filter hook ingress device "{interface}" priority 0;\n'
        f"  numgen random mod 10000 < {round(percent * 100)} counter drop\n }}\n}}\n"
    )
