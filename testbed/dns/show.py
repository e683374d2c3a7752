"""Names as `get` shows them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab


def names(lab: "Lab") -> list[dict[str, Any]]:
    """Every record that the cluster's DNS answers with, by name (`get names`); none in a lab without."""
    return [
        {"kind": "Name", "metadata": {"name": one.name}, "spec": {"type": one.type, "data": one.data}}
        for one in lab.names.records()
    ]
