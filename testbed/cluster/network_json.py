"""The network config as it is written to etcd."""

import json
from collections.abc import Mapping


def network_json(network: Mapping[str, object]) -> str:
    """The config as it is written to etcd: compact JSON, keys in the order of the file. Raises ValueError for NaN."""
    return json.dumps(network, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
