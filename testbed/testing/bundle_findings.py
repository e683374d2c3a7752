"""Findings in a bundle: lines that point at the likely cause.

Pure: file names and texts in, lines out. They are hints, not verdicts: each names something unlike a healthy lab, and
the file with the details. Causes come before their effects: a rule that dropped packets before a pod that is not ready.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from testbed.cluster.columns import selector_text
from testbed.cluster.device_names import DROP_DEVICE
from testbed.cluster.object_key import key_of, key_of_object

Files = Mapping[str, str]
SHOWN = 160
OUR_TABLES = ("overlay-agent", "testbed-")
"""Prefixes of the agent's and the lab's nftables tables. Their rules drop on purpose."""
EVERYDAY_DROPS = frozenset(("no_route", "multicast", "version", "device_tx"))
"""Drops of an overlay in every lab: packets to no node's address, and the kernel's own neighbour discovery."""
SLEEPING_DEVICES = frozenset(
    ("tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0")
)
"""A kernel creates them in every namespace, down."""
USUAL_RULES = frozenset(("local", "main", "default"))
"""Routing tables named by the rules of a fresh kernel."""
COUNTED = re.compile(r"counter packets (\d+) ")
LOSSY_ROUTE = re.compile(r"(blackhole|prohibit) (?!default)\S+")
MTU = re.compile(r" mtu (\d+) ")


def findings(files: Files) -> list[str]:
    """Return lines about a bundle's files, by name; a missing or unreadable file is skipped."""
    own, foreign, silent = _rules(files)
    return [
        *_faults(files),
        *foreign,
        *_links(files),
        *_lossy_routes(files),
        *_neighbours(files),
        *_pod_routes(files),
        *_mtus(files),
        *_members(files),
        *_agents(files),
        *_routes(files),
        *_pods(files),
        *_services(files),
        *_policies(files),
        *silent,
        *own,
        *_drops(files),
    ]


def _faults(files: Files) -> Iterator[str]:
    for fault in _json(files, "faults.json") or []:
        if fault["on"]:
            yield f"active fault {fault['number']}: {fault['fault']}: {fault['did']} (faults.json)"


def _members(files: Files) -> Iterator[str]:
    for member in (_json(files, "status.json") or {}).get("etcd", []):
        if not member["healthy"]:
            yield f"etcd {member['name']} is not healthy (logs/{member['name']}.log)"


def _agents(files: Files) -> Iterator[str]:
    for node in (_json(files, "status.json") or {}).get("nodes", []):
        name, agent, peers = node["name"], node["agent"], node["peers"]
        if agent["state"] not in ("ready", "by hand"):
            last = _last_line(files.get(f"nodes/{name}/agent.log", ""))
            said = f"; its log ends: {last}" if last else ""
            yield f"node {name}: agent is {agent['state']}, {agent['restarts']} restarts{said}"
        elif peers["known"] < peers["expected"]:
            yield f"node {name}: agent knows {peers['known']} of {peers['expected']} peers (get/routes.json)"


def _pods(files: Files) -> Iterator[str]:
    for pod in (_json(files, "status.json") or {}).get("pods", []):
        if not pod["ready"]:
            why = (_json(files, f"pods/{key_of(pod['name']).file_name}/describe.json") or {}).get("Why not ready") or ""
            yield f"pod {pod['name']} on {pod['node']} is {pod['state']}, not ready: {why}".rstrip(": ")


def _routes(files: Files) -> Iterator[str]:
    """Yield nodes without a route into the overlay, and nodes without a lease in their forwarding table."""
    status = _json(files, "status.json") or {}
    apart = {node["name"] for node in status.get("nodes", []) if not node["peers"]["expected"]}
    leases = _json(files, "get/leases.json") or []
    subnets = {lease["spec"]["subnet"]: lease["spec"]["node"] for lease in leases}
    for table in _json(files, "get/routes.json") or []:
        name, seen = table["metadata"]["name"], table["status"]
        routes = [
            ip_network(route["destination"])
            for route in seen["kernel"]
            if route["type"] == "unicast" and not route["destination"].endswith("/0")
        ]
        # A backend that only allocates subnets connects no nodes.
        wanted = {subnet: owner for subnet, owner in subnets.items() if owner == name or name not in apart}
        for subnet, owner in wanted.items():
            if not any(_contains(route, ip_network(subnet)) for route in routes):
                yield f"node {name}: no route to {subnet} of {owner} (nodes/{name}/routes.txt)"
        known = None if seen["forwarding"] is None else {entry["subnet"] for entry in seen["forwarding"]}
        for subnet, owner in wanted.items():
            if known is not None and owner != name and subnet not in known:
                yield f"node {name}: forwarding table: missing {subnet} of {owner} (nodes/{name}/agent-state.json)"


def _contains(route: Any, subnet: Any) -> bool:  # noqa: ANN401 - networks of one family or two
    return bool(route.version == subnet.version and subnet.subnet_of(route))


def _lossy_routes(files: Files) -> Iterator[str]:
    """Yield routes of nodes that drop packets, and routing rules with precedence over the main table."""
    for file, text in sorted(files.items()):
        kind, _, rest = file.partition("/")
        node, _, name = rest.partition("/")
        if kind == "nodes" and name == "routes.txt":
            for route in filter(None, map(LOSSY_ROUTE.match, text.splitlines())):
                yield f"node {node}: a route drops packets: {route[0]} ({file})"
        if kind == "nodes" and name == "routing-policy.txt":
            for line in text.splitlines():
                _, found, table = line.partition(" lookup ")
                if found and table.split()[0] not in USUAL_RULES:
                    yield f"node {node}: a routing rule comes before the main table: {' '.join(line.split())} ({file})"


def _neighbours(files: Files) -> Iterator[str]:
    """Yield nodes that send a pod's frames to a wrong MAC address."""
    macs = {
        address: (file.split("/")[1], ether[1])
        for file, text in files.items()
        if file.startswith("pods/") and file.endswith("/addresses.txt")
        for block in _blocks(text)
        if (ether := re.search(r"link/ether (\S+)", block))
        for address in re.findall(r"inet6? (\S+)/", block)
    }
    for file, text in sorted(files.items()):
        node, _, name = file.removeprefix("nodes/").partition("/")
        if not file.startswith("nodes/") or name != "neighbours.txt":
            continue
        for address, mac in re.findall(r"^(\S+) dev \S+ lladdr (\S+)", text, re.MULTILINE):
            pod, own = macs.get(address, ("", mac))
            if own != mac:
                yield f"node {node}: frames for {address} go to {mac}, pod {pod} has {own} ({file})"


def _services(files: Files) -> Iterator[str]:
    for service in _json(files, "get/services.json") or []:
        if service["testbed"]["readyEndpoints"] == 0:
            yield f"service {key_of_object(service)}: no ready pod is behind it (get/endpoints.json)"


def _policies(files: Files) -> Iterator[str]:
    for policy in _json(files, "get/networkpolicies.json") or []:
        spec = policy["spec"]
        pods, directions = selector_text(spec["podSelector"]), " and ".join(spec["policyTypes"]).lower()
        file = "get/networkpolicies.json"
        yield f"networkpolicy {key_of_object(policy)}: isolates pods {pods} for {directions} ({file})"


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
            yield f"pod {pod.replace('_', '/')}: no default route ({file})"


def _rules(files: Files) -> tuple[list[str], list[str], list[str]]:
    """Return rules that drop packets: ours and others' with a nonzero counter, and others' without a counter.

    Rules of faults are skipped, which have their own finding.
    """
    own, foreign, silent = list[str](), list[str](), list[str]()
    has_faults = bool(_json(files, "faults.json"))
    for rule in _dropping_rules(files):
        if rule.is_ours and rule.counted and " ip6 " not in rule.text:
            # The IPv6 ones count the neighbour discovery of every pod's start.
            own.append(str(rule))
        elif rule.is_ours or rule.counted == 0 or (rule.is_of_a_fault and has_faults):
            continue
        else:
            (silent if rule.counted is None else foreign).append(str(rule))
    return own, foreign, silent


@dataclass(frozen=True, slots=True)
class _DroppingRule:
    node: str
    table: str
    """`table ip mine`."""
    text: str
    file: str

    def __str__(self) -> str:
        return f"node {self.node}: {self.table} has: {self.text[:SHOWN]} ({self.file})"

    @property
    def counted(self) -> int | None:
        """Return how many packets it has dropped; None without a counter."""
        found = COUNTED.search(self.text)
        return None if found is None else int(found[1])

    @property
    def is_of_a_fault(self) -> bool:
        return self.table.split()[-1].startswith("testbed-fault-")

    @property
    def is_ours(self) -> bool:
        return self.table.split()[-1].startswith(OUR_TABLES) and not self.is_of_a_fault


def _dropping_rules(files: Files) -> Iterator[_DroppingRule]:
    for file, text in sorted(files.items()):
        if not file.endswith("/nft.txt"):
            continue
        table = "table"
        for line in map(str.strip, text.splitlines()):
            if line.startswith("table "):
                table = line.partition(" {")[0]
            words = line.split(" # handle")[0].split()
            if {"drop", "drop;", "reject"} & set(words):
                yield _DroppingRule(file.split("/")[1], table, " ".join(words), file)


def _drops(files: Files) -> Iterator[str]:
    """Yield drops by agents."""
    for file in sorted(files):
        if file.endswith("/agent-state.json"):
            drops = ((_json(files, file) or {}).get("counters") or {}).get("drops", {})
            counted = ", ".join(
                f"{reason} {number}" for reason, number in drops.items() if number and reason not in EVERYDAY_DROPS
            )
            if counted:
                yield f"node {file.split('/')[1]}: packets dropped by the agent: {counted} ({file})"


def _links(files: Files) -> Iterator[str]:
    for file, text in sorted(files.items()):
        if not file.endswith("links.txt"):
            continue
        blocks = list(_blocks(text))
        in_use = {master for block in blocks for master in re.findall(r" master (\S+)", block)}
        for block in blocks:
            name = block.partition(": ")[2].split(": ")[0].split("@")[0]
            flags = block.partition("<")[2].partition(">")[0].split(",")
            is_empty_bridge = re.search(r"^\s+bridge ", block, re.MULTILINE) and name not in in_use
            if name in SLEEPING_DEVICES:
                continue
            if "UP" not in flags:
                yield f"{'/'.join(file.split('/')[:2])}: {name} is down ({file})"
            elif "NO-CARRIER" in flags and name != DROP_DEVICE and not is_empty_bridge:
                yield f"{'/'.join(file.split('/')[:2])}: {name} has no carrier ({file})"


def _mtus(files: Files) -> Iterator[str]:
    """Yield switch ports with a smaller MTU than the others: a switch silently drops larger frames."""
    ports = {
        block.partition(": ")[2].split(": ")[0].split("@")[0]: int(found[1])
        for block in _blocks(files.get("switches.txt", ""))
        if (found := MTU.search(block)) and " master " in block
    }
    widest = max(ports.values(), default=0)
    for port, mtu in ports.items():
        if mtu < widest:
            yield f"switches: {port} has an MTU of {mtu}, others {widest} (switches.txt)"


def _blocks(text: str) -> Iterator[str]:
    """Split the output of `ip link` by device."""
    numbered = re.compile(r"\d+: \S+ <")
    lines = itertools.dropwhile(lambda line: not numbered.match(line), text.splitlines())
    block: list[str] = []
    for line in lines:
        if numbered.match(line) and block:
            yield "\n".join(block)
            block = []
        if block or numbered.match(line):
            block.append(line)
        if block and not line.startswith(" ") and not numbered.match(line):
            # The next command's output.
            yield "\n".join(block[:-1])
            block = []
    if block:
        yield "\n".join(block)


def _json(files: Files, name: str) -> Any:  # noqa: ANN401 - JSON
    """Return a file's value; None if it is missing or invalid. A script's output is preceded by the command."""
    lines = [line for line in files.get(name, "").splitlines() if not line.startswith("# ")]
    try:
        return json.loads("\n".join(lines))
    except ValueError:
        return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:SHOWN] if lines else ""
