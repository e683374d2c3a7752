"""Kubernetes' quantities: bytes as `64Mi`, `1G`, `1e6`, `0.5Gi`, processors as `500m`, `0.5`."""

import re
from decimal import ROUND_CEILING, Decimal

from testbed.cluster.name_rules import wrong

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([kMGTPE]|[KMGTPE]i|m)|[eE]([0-9]{1,2}))?")
FACTORS = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
    "m": Decimal("0.001"),
}


def bytes_of(quantity: int | str) -> int:
    """Return the number of bytes, rounded up. Raises a validation error for anything else."""
    amount = _amount(quantity)
    if amount is None:
        raise wrong("not a quantity of bytes", quantity, "a number with a unit, such as 64Mi or 1G")
    return int(amount.to_integral_value(ROUND_CEILING))


def thousandths_of(cpu: float | str) -> int:
    """Return thousandths of a processor, rounded up. Raises a validation error for anything else."""
    amount = _amount(cpu)
    if amount is None:
        raise wrong("not an amount of CPU", cpu, "processors, such as 500m or 0.5")
    return int((amount * 1000).to_integral_value(ROUND_CEILING))


def _amount(quantity: float | str) -> Decimal | None:
    found = _QUANTITY.fullmatch(str(quantity))
    if not found:
        return None
    number, unit, exponent = found.groups()
    factor = FACTORS[unit] if unit else Decimal(10) ** int(exponent or 0)
    return Decimal(number) * factor


def check_cpu(cpu: object) -> int | float | str:
    """Return an amount of CPU as it was written."""
    if isinstance(cpu, bool) or not isinstance(cpu, int | float | str):
        raise wrong("not an amount of CPU", cpu, "processors, such as 500m or 0.5")
    thousandths_of(cpu)
    return cpu


def check_quantity(quantity: object) -> int | str:
    """Check a quantity and return it as written."""
    if isinstance(quantity, bool) or not isinstance(quantity, int | str):
        raise wrong("not a quantity of bytes", quantity, "a number with a unit, such as 64Mi or 1G")
    bytes_of(quantity)
    return quantity
