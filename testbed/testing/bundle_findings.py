"""What stands out in a bundle: lines that point at the likely cause. Pure: file names and texts in, lines out.

A hint, not a verdict: what is named here looks unlike a healthy lab, and the file beside it shows it whole.
"""

import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

from testbed.cluster.device_names import DROP_DEVICE

Files = Mapping[str, str]
SHOWN = 160


def findings(files: Files) -> list[str]:
    """Lines about a bundle's files, by their names in it; a file that is missing or unreadable is passed over."""
    return [*_states(files), *_routes(files), *_pod_routes(files), *_rules(files), *_drops(files), *_links(files)]


def _states(files: Files) -> Iterator[str]:
    status = _json(files, "status.json") or {}
    for member in status.get("etcd", []):
        if not member["healthy"]:
            yield f"etcd {member['name']} is not healthy (logs/{member['name']}.log)"
    for node in status.get("nodes", []):
        name, agent, peers = node["name"], node["agent"], node["peers"]
        if agent["state"] not in ("ready", "by hand"):
            last = _last_line(files.get(f"nodes/{name}/agent.log", ""))
            said = f"; its log ends: {last}" if last else ""
            yield f"node {name}: agent is {agent['state']}, {agent['restarts']} restarts{said}"
        elif peers["known"] < peers["expected"]:
            yield f"node {name}: agent knows {peers['known']} of {peers['expected']} peers (get/routes.json)"
    for pod in status.get("pods", []):
        if not pod["ready"]:
            why = (_json(files, f"pods/{pod['name']}/describe.json") or {}).get("Why not ready") or ""
            yield f"pod {pod['name']} on {pod['node']} is {pod['state']}, not ready: {why}".rstrip(": ")


def _routes(files: Files) -> Iterator[str]:
    """Nodes without a way into the overlay, and nodes whose forwarding table lacks a lease."""
    leases = _json(files, "get/leases.json") or []
    subnets = {lease["spec"]["subnet"]: lease["spec"]["node"] for lease in leases}
    for table in _json(files, "get/routes.json") or []:
        name, status = table["metadata"]["name"], table["status"]
        ways = [
            IPv4Network(route["destination"])
            for route in status["kernel"]
            if route["type"] == "unicast" and route["destination"] != "0.0.0.0/0"
        ]
        for subnet, owner in subnets.items():
            if not any(IPv4Network(subnet).subnet_of(way) for way in ways):
                yield f"node {name}: no route to {subnet} of {owner} (nodes/{name}/routes.txt)"
        known = None if status["forwarding"] is None else {entry["subnet"] for entry in status["forwarding"]}
        for subnet, owner in subnets.items():
            if known is not None and owner != name and subnet not in known:
                yield f"node {name}: forwarding table lacks {subnet} of {owner} (nodes/{name}/agent-state.json)"


def _pod_routes(files: Files) -> Iterator[str]:
    for file, text in sorted(files.items()):
        kind, _, rest = file.partition("/")
        pod, _, name = rest.partition("/")
        routes = [line for line in text.splitlines() if line and not line.startswith("#")]
        if (
            kind == "pods"
            and name == "routes.txt"
            and routes
            and not any(line.startswith("default") for line in routes)
        ):
            yield f"pod {pod}: no default route ({file})"


def _rules(files: Files) -> Iterator[str]:
    """Rules that throw packets away; the agent's own table has none."""
    for file, text in sorted(files.items()):
        if not file.endswith("/nft.txt"):
            continue
        table = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("table "):
                table = line.partition(" {")[0]
            words = line.split(" # handle")[0].split()
            if {"drop", "drop;", "reject"} & set(words):
                rule = " ".join(words)
                yield f"node {file.split('/')[1]}: {table} has: {rule[:SHOWN]} ({file})"


def _drops(files: Files) -> Iterator[str]:
    for file in sorted(files):
        if file.endswith("/agent-state.json"):
            drops = ((_json(files, file) or {}).get("counters") or {}).get("drops", {})
            counted = ", ".join(f"{reason} {number}" for reason, number in drops.items() if number)
            if counted:
                yield f"node {file.split('/')[1]}: packets dropped by the agent: {counted} ({file})"


def _links(files: Files) -> Iterator[str]:
    for file, text in sorted(files.items()):
        if not file.endswith("links.txt"):
            continue
        for line in text.splitlines():
            number, _, rest = line.partition(": ")
            if number.isdigit() and "<" in rest:
                name, flags = rest.split(": ")[0].split("@")[0], rest.partition("<")[2].partition(">")[0].split(",")
                if "UP" not in flags or ("NO-CARRIER" in flags and name != DROP_DEVICE):
                    down = "has no carrier" if "UP" in flags else "is down"
                    yield f"{'/'.join(file.split('/')[:2])}: {name} {down} ({file})"


def _json(files: Files, name: str) -> Any:  # noqa: ANN401 - JSON
    """A file's value; None when it is missing or holds none. A script's output has the command before it."""
    lines = [line for line in files.get(name, "").splitlines() if not line.startswith("# ")]
    try:
        return json.loads("\n".join(lines))
    except ValueError:
        return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:SHOWN] if lines else ""
