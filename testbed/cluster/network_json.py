"""The network config in its etcd form."""

import json
from collections.abc import Mapping


def network_json(network: Mapping[str, object]) -> str:
    """Return the network config for etcd: compact JSON, keys in the order of the file. Raises ValueError for NaN."""
    return json.dumps(network, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
