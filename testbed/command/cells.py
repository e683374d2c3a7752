"""What stands in one cell of a table."""


def both(*addresses: str | None) -> str | None:
    """Addresses of both families in one cell; None where there is none."""
    return ", ".join(one for one in addresses if one) or None
