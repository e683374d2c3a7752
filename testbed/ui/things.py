"""What the page shows about a clicked object, and the faults that it offers there. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from testbed.control.answers.graph import GraphAnswer, InterfaceFacts
from testbed.errors import InvalidInput

NamedT = TypeVar("NamedT", bound=Mapping[str, object])
Rows = list[tuple[str, str]]
Words = tuple[str, ...]
LOSS_PERCENT, DELAY = "30", "100ms"
"""Parameters of the faults offered for a cable."""
NODE_FAULTS = (
    ("kill agent", "agent kill {0}"),
    ("stop agent", "agent stop {0}"),
    ("cut off (partition)", "partition {0}"),
)
AGENT_FAULTS = (
    ("kill", "agent kill {0}"),
    ("stop", "agent stop {0}"),
    ("pause (SIGSTOP)", "agent pause {0}"),
    ("hang", "agent hang {0}"),
)
RELAY_FAULTS = (("partition", "etcd partition {0}"),)
"""An existing cluster is not the lab's to break."""
ETCD_FAULTS = (("stop", "etcd stop {0}"), ("pause (SIGSTOP)", "etcd pause {0}"), ("partition", "etcd partition {0}"))
CABLE_FAULTS = (
    ("cut", "link down {0} {1}"),
    (f"loss {LOSS_PERCENT} %", f"link loss {{0}} {{1}} {LOSS_PERCENT}"),
    (f"delay {DELAY}", f"link delay {{0}} {{1}} {DELAY}"),
)


def rows_of_thing(facts: GraphAnswer, kind: str, name: str) -> Rows:
    """Return the facts about an object, as headings and values. Raises InvalidInput for an unknown one."""
    makers: dict[str, Callable[[GraphAnswer, str], Iterator[tuple[str, str]]]] = {
        "node": _node,
        "agent": _agent,
        "pod": _pod,
        "device": _device,
        "machine": _machine,
        "service": _service,
        "link": _link,
    }
    if kind not in makers:
        raise InvalidInput(f"facts: no such kind (got {kind!r}; want {', '.join(makers)})")
    try:
        found = list(makers[kind](facts, name))
    except KeyError:
        found = []
    if not found:
        raise InvalidInput(f"facts: no {kind} named {name}")
    words = {name, *name.replace("/", " ").split()}
    faults = [one for one in facts.get("faults", ()) if words & set(one["fault"].split())]
    return found + [(f"active fault {one['number']}", f"{one['fault']}: {one['did']}") for one in faults]


def offers_of(facts: GraphAnswer, kind: str, name: str) -> list[tuple[str, Words]]:
    """Return the faults that the page offers for an object: the button's label, and the fault's words."""
    if kind == "link":
        ends = [end.split("/")[0] for end in name.split()]
        known = {frozenset(end["machine"] for end in cable["ends"]) for cable in facts["cables"]}
        return _offered(CABLE_FAULTS, *ends) if frozenset(ends) in known else []
    if kind in ("node", "agent") and any(node["name"] == name for node in facts["nodes"]):
        return _offered(NODE_FAULTS if kind == "node" else AGENT_FAULTS, name)
    member = next((one for one in facts["machines"] if one["name"] == name and one["kind"] == "etcd"), None)
    if kind == "machine" and member is not None:
        return _offered(RELAY_FAULTS if "cluster" in member else ETCD_FAULTS, name)
    return []


def every_offer(facts: GraphAnswer) -> set[Words]:
    """Return the words of every fault that the page offers anywhere."""
    places = [("node", node["name"]) for node in facts["nodes"]]
    places += [("agent", node["name"]) for node in facts["nodes"]]
    places += [("machine", machine["name"]) for machine in facts["machines"]]
    for cable in facts["cables"]:
        ends = [f"{end['machine']}/{end['interface']}" for end in cable["ends"]]
        places += [("link", " ".join(ends)), ("link", " ".join(reversed(ends)))]
    return {words for place in places for _, words in offers_of(facts, *place)}


def has_routes(facts: GraphAnswer, kind: str, name: str) -> bool:
    """Report whether the object has its own network namespace, whose routes can be read."""
    names = {
        "pod": [pod["name"] for pod in facts["pods"]],
        "node": [node["name"] for node in facts["nodes"]],
        "machine": [machine["name"] for machine in facts["machines"]],
    }
    return name in names.get(kind, ())


def _offered(faults: tuple[tuple[str, str], ...], *names: str) -> list[tuple[str, Words]]:
    return [(label, tuple(text.format(*names).split())) for label, text in faults]


def _named(things: Sequence[NamedT], name: str) -> NamedT:
    for one in things:
        if one["name"] == name:
            return one
    raise KeyError(name)


def _node(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    node = _named(facts["nodes"], name)
    yield "address", node["address"]
    yield "subnet", node["subnet"] or "none"
    yield from _agent(facts, name)
    yield from (("forwards", f"{one['subnet']} → {one['via']}") for one in node["forwarding"] or ())
    yield from _interfaces(_named(facts["machines"], name)["interfaces"])


def _agent(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    node = _named(facts["nodes"], name)
    yield "agent", f"{node['agent']['state']}, restarted {node['agent']['restarts']} times"
    yield "backend", f"{node['backend']}, data path {node['datapath']}"
    yield "peers", f"{node['peers']['known']} of {node['peers']['expected']}"
    yield from (("why not ready", why) for why in node["why_not_ready"])
    yield from ((f"dropped, {reason}", str(count)) for reason, count in node["drops"].items() if count)
    yield from ((name.replace("_", " "), str(count)) for name, count in node["traffic"].items())


def _pod(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    pod = _named(facts["pods"], name)
    yield "node", pod["node"]
    yield "address", pod["address"] or "none"
    yield "state", f"{pod['state']}, {'ready' if pod['ready'] else 'not ready'}, restarted {pod['restarts']} times"
    if pod["host_end"]:
        links = [one for one in _named(facts["machines"], pod["node"])["interfaces"] if one["name"] == pod["host_end"]]
        yield from ((f"{pod['node']}/{link['name']}", _counters(link)) for link in links)


def _device(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    owner, _, interface = name.partition("/")
    node = _named(facts["nodes"], owner)
    for role, device in (("bridge", node["bridge"]), ("overlay", node["overlay"])):
        if device is not None and device["name"] == interface:
            yield role, f"{device['kind']}, {device['address'] or 'no address'}"
    link = _named(_named(facts["machines"], owner)["interfaces"], interface)
    yield "counters", _counters(link)


def _machine(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    switch = next((one for one in facts["switches"] if one["name"] == name), None)
    if switch is not None:
        yield "switch", "up" if switch["up"] else "down"
        yield from _interfaces(switch["interfaces"])
        return
    machine = _named(facts["machines"], name)
    yield "kind", machine["kind"]
    yield from (("relay to", endpoint) for endpoint in machine.get("cluster", ()))
    yield "healthy", "yes" if machine["healthy"] else "no"
    yield from _interfaces(machine["interfaces"])


def _service(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    service = _named(facts["services"], name)
    yield "type", service["type"]
    yield "cluster IP", service["cluster_ip"] or "none (headless)"
    for port in service["ports"]:
        node_port = f", node port {port['node_port']}" if port["node_port"] else ""
        yield "port", f"{port['port']}/{port['protocol']}{node_port}"
    yield "ready pods", str(service["endpoints"])


def _link(facts: GraphAnswer, name: str) -> Iterator[tuple[str, str]]:
    ends = name.split()
    for cable in facts["cables"]:
        if {f"{end['machine']}/{end['interface']}" for end in cable["ends"]} == set(ends):
            shaping = (
                f"{cable['bandwidth_mbit']:g} Mbit/s" if cable["bandwidth_mbit"] else "",
                f"delay {cable['delay']}" if cable["delay"] else "",
                f"{cable['loss_percent']:g} % loss" if cable["loss_percent"] else "",
            )
            yield "cable", ", ".join(word for word in shaping if word) or "unshaped"
            if cable["spare"]:
                yield "spanning tree", "held back"
    for end in ends:
        owner, _, interface = end.partition("/")
        for place in (*facts["machines"], *facts["switches"]):
            if place["name"] == owner:
                links = [link for link in place["interfaces"] if link["name"] == interface]
                yield from ((end, _counters(link)) for link in links)


def _interfaces(links: Sequence[InterfaceFacts]) -> Iterator[tuple[str, str]]:
    for link in links:
        yield link["name"], _counters(link)


def _counters(link: InterfaceFacts) -> str:
    lost = link["rx_dropped"] + link["tx_dropped"]
    state = f"{'up' if link['up'] else 'DOWN'}, MTU {link['mtu']}"
    came = f"{link['rx_packets']} packets {link['rx_bytes']} bytes"
    left = f"{link['tx_packets']} packets {link['tx_bytes']} bytes"
    return f"{state}, in {came}, out {left}" + (f", {lost} dropped" if lost else "")
