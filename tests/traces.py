"""Traces that labs once answered, with the picture's facts of the same lab."""

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "vectors" / "traces"
Object = dict[str, Any]


def recorded(backend: str) -> Object:
    """Return `trace` (nginx → tomcat:8080, TCP) and `graph` of the cluster nginx_tomcat with this backend.

    `trace nginx tomcat:8080 --raw -o json` and `graph -o json` said them; wireguard's in scripts/vm.
    """
    found: Object = json.loads((RECORDED / f"{backend}.json").read_text())
    return found
