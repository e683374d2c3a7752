"""What a cable does to the packets on it: as netem's arguments, as nftables rules, as orders to our own shim. Pure."""

from dataclasses import asdict, dataclass

REORDER_DELAY_MS = 10.0
"""Packets that are not sent ahead wait so long, where no delay was asked for: netem needs one to reorder."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """In each direction; percentages of packets, times in milliseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    """One bit is flipped."""
    reorder: float = 0.0
    """Sent at once, while the others wait."""
    delay: float = 0.0
    jitter: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether the cable is a perfect one."""
        return self == Impairment()

    @property
    def only_loses(self) -> bool:
        """Whether it loses packets and does nothing else to them."""
        return bool(self.loss) and self == Impairment(loss=self.loss)

    @property
    def waits_ms(self) -> float:
        """How long a packet waits."""
        return self.delay or (REORDER_DELAY_MS if self.reorder else 0.0)

    def orders(self) -> dict[str, float]:
        """For the shim."""
        return {**asdict(self), "delay": self.waits_ms}


def netem_arguments(impairment: Impairment) -> list[str]:
    """What follows `netem` on tc's command line."""
    words = []
    if impairment.waits_ms:
        words += ["delay", f"{impairment.waits_ms:g}ms"]
        words += [f"{impairment.jitter:g}ms"] if impairment.jitter else []
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        percent = getattr(impairment, name)
        words += [name, f"{percent:g}%"] if percent else []
    return words


def loss_script(table: str, interface: str, percent: float) -> str:
    """A script for nft that drops so many of the packets that come in on an interface."""
    return (
        f'table netdev {table} {{\n chain in {{\n  type filter hook ingress device "{interface}" priority 0;\n'
        f"  numgen random mod 10000 < {round(percent * 100)} counter drop\n }}\n}}\n"
    )
