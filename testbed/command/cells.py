"""What stands in one cell of a table."""

from collections.abc import Mapping
from typing import Any


def both(*addresses: str | None) -> str | None:
    """Addresses of both families in one cell; None where there is none."""
    return ", ".join(one for one in addresses if one) or None


def cluster_ips(spec: Mapping[str, Any]) -> str | None:
    """Those of a Service."""
    return both(*(spec.get("clusterIPs") or [spec["clusterIP"]]))
