"""Answers on a terminal: kubectl-like columns, headings and values, a matrix of pings."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from testbed.cluster.columns import LABELS, NAMESPACE, agent_state, joined
from testbed.cluster.kinds import ROUTE_TABLE, Kind
from testbed.output.cells import machine_lines, warning_lines
from testbed.output.layout import blocks, table_lines, wrap
from testbed.output.standard_streams import screen_width
from testbed.places import TOPOLOGIES
from testbed.spelling import listed

if TYPE_CHECKING:
    from testbed.control.answers.lab import EventLine, PingAnswer, StatusAnswer

Object = Mapping[str, Any]
GOOD = {"ready", "Running", "Succeeded"}
_PLACE = re.compile(r"(?:error: )?(?P<file>.+?):(?P<line>\d+):\d+: ")
MATRIX_TARGETS = 12
"""Targets that fit into a matrix of pings; a terminal shows four or five without wrapping, a pipe any number."""
BAD_COLOUR, GOOD_COLOUR, WARNING_COLOUR = "red", "green", "yellow"


def console() -> Console:
    """Return standard output; colour only on a terminal, and texts literally: a bracket is not markup."""
    return Console(highlight=False, emoji=False, markup=False)


def say(text: str, style: str = "") -> None:
    """Print a text literally, wrapped between words at the available width."""
    _print([Text(line, style) for line in wrap(text, screen_width())])


def _print(lines: Iterable[Text]) -> None:
    console().print(Text("\n").join(lines), soft_wrap=True)


def as_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))


def as_yaml(value: object) -> None:
    """Print a value as YAML."""
    from testbed.cluster.yaml_source import dump_documents

    print(dump_documents([value]), end="")


def columns(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, headings in capitals."""
    plain_columns([heading.upper() for heading in headings], rows)


def plain_columns(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, headings as they are: names of pods, for example.

    A terminal shows the same as a pipe: what does not fit is below (testbed.output.layout).
    """
    _print(table_lines(headings, [[_cell(value) for value in row] for row in rows], screen_width()))


def matrix(headings: Sequence[str], rows: Iterable[Sequence[object]], keys: int = 1, *, numbers: bool = False) -> None:
    """Print similar columns after the first `keys`: those that do not fit follow in another table.

    `numbers`: they are right-aligned.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    texts = [[heading, *(row[number].plain for row in cells)] for number, heading in enumerate(headings)]
    width = screen_width()
    for count, block in enumerate(blocks(texts, keys, width)):
        if count:
            print()
        right = frozenset(range(keys, len(block))) if numbers else frozenset()
        chosen = [[row[number] for number in block] for row in cells]
        _print(table_lines([headings[number] for number in block], chosen, width, right))


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    text = str(value)
    colour = GOOD_COLOUR if text in GOOD else BAD_COLOUR if text in {"fenced", "CrashLoopBackOff", "backoff"} else ""
    return Text(text, style=colour)


NODE_HEADINGS = ("node", "address", "subnet", "agent", "peers", "restarts")
POD_HEADINGS = ("pod", "node", "address", "state", "ready", "restarts")


def labs(answers: Sequence["StatusAnswer"]) -> None:
    """Print several labs, one line each."""
    columns(
        ("lab", "state", "nodes", "pods", "backend", "cluster", "since"),
        (
            (
                answer["lab"],
                answer["state"],
                _ready_of(node["agent"]["state"] == "ready" for node in answer["nodes"]),
                _ready_of(pod["ready"] for pod in answer["pods"]),
                _backends_of(answer),
                _name_of(answer["cluster_file"]),
                answer["since"],
            )
            for answer in answers
        ),
    )


def _ready_of(those: Iterable[bool]) -> str:
    """Return `2/3`: ready of all."""
    known = list(those)
    return f"{sum(known)}/{len(known)}"


def _backends_of(answer: "StatusAnswer") -> str:
    return ", ".join(sorted({node["backend"] for node in answer["nodes"]}))


def status(answer: "StatusAnswer") -> None:
    """Print the lab at a glance."""
    cluster = _name_of(answer["cluster_file"])
    made_of = f"{cluster}, backend {_backends_of(answer)}" + (", Open vSwitch" if answer["switch"] == "ovs" else "")
    say(f"lab {answer['lab']}: {answer['state']} since {answer['since']} ({made_of})\n")
    columns(
        NODE_HEADINGS,
        (
            (
                node["name"],
                joined([node["address"], node.get("ipv6_address")]),
                joined([node["subnet"], node.get("ipv6_subnet")]),
                agent_state(node["agent"]["state"], node["drained"], node.get("cordoned", False)),
                f"{node['peers']['known']}/{node['peers']['expected']}",
                node["agent"]["restarts"],
            )
            for node in answer["nodes"]
        ),
    )
    print()
    if answer["pods"]:
        columns(
            POD_HEADINGS,
            (
                (
                    pod["name"],
                    pod["node"],
                    joined([pod["address"], pod.get("ipv6_address")]),
                    pod["state"],
                    "yes" if pod["ready"] else "no",
                    pod["restarts"],
                )
                for pod in answer["pods"]
            ),
        )
    else:
        print("no pods")
    unhealthy = [member["name"] for member in answer["etcd"] if not member["healthy"]]
    if unhealthy:
        say(f"\netcd: {', '.join(unhealthy)} does not answer", BAD_COLOUR)
    for member in answer["etcd"]:
        if "cluster" in member:
            say(f"\netcd: {', '.join(member['cluster'])}, keys below {member['prefix']}")
    if (dns := answer.get("dns")) and not dns["healthy"]:
        say(f"\ndns: {dns['address']} does not answer (testbed logs dns)", BAD_COLOUR)
    for line, is_bad in machine_lines(answer["machines"]):
        say(f"\nmachines: {line}", BAD_COLOUR if is_bad else "")
    if answer["faults"]:
        say("\n" + "\n".join(answer["faults"]), WARNING_COLOUR)
    for line in warning_lines(answer["nodes"]):
        say(f"\nwarning: {line}", WARNING_COLOUR)


def _name_of(cluster_file: str) -> str:
    """Return one of our own cluster files by the name that `up` accepts; any other by its path."""
    path = Path(cluster_file)
    return path.stem if path.parent == TOPOLOGIES else cluster_file


def objects(
    kind: Kind,
    found: Sequence[Object],
    wide: bool,
    *,
    with_kind: bool = False,
    with_namespace: bool = False,
    with_labels: bool = False,
) -> None:
    """Print `get KIND` as columns; `with_kind`: each name as `pod/nginx`, because other kinds are shown too.

    `with_namespace`: its namespace before the name, if it has one; `with_labels`: they come last.
    """
    if kind is ROUTE_TABLE:
        for item in found:
            _route_table(item)
        return
    shown = [*(column for column in kind.columns if wide or not column.wide), *([LABELS] if with_labels else [])]
    rows = [[column.cell(item) for column in shown] for item in found]
    if with_kind:
        rows = [[f"{kind.singular}/{name}", *cells] for name, *cells in rows]
    headings = [column.heading for column in shown]
    if with_namespace and kind.namespaced:
        headings = [NAMESPACE.heading, *headings]
        rows = [[NAMESPACE.cell(item), *cells] for item, cells in zip(found, rows, strict=True)]
    columns(headings, rows)


def warnings(found: Iterable[object]) -> None:
    """Print harmless problems on standard error: one line for each new one, followed by the lines of its
    repetitions.
    """
    places: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for line in map(str, found):
        place = _PLACE.match(line)
        # The same problem of another container, or of another Deployment's template, is printed once.
        alike = re.sub(r"\[\d+\]", "", line[place.end() :].replace("spec.template.spec.", "spec.")) if place else line
        alike = f"{place['file']}: {alike}" if place else alike
        if alike in first:
            places[alike].append(place["line"] if place else "")
        first.setdefault(alike, line)
        places.setdefault(alike, [])
    for alike, line in first.items():
        again = list(dict.fromkeys(places[alike]))
        more = f" (and line{'s' * (len(again) > 1)} {listed(again)})" if again else ""
        print(f"{line.replace('error: ', 'warning: ', 1)}{more}", file=sys.stderr)


def _route_table(item: Object) -> None:
    name, status = item["metadata"]["name"], item["status"]
    say(f"{name}: kernel routes", "bold")
    columns(
        ("destination", "via", "device", "source", "type"),
        (
            (route["destination"], route["gateway"], route["device"], route["source"], route["type"])
            for route in status["kernel"]
        ),
    )
    say(f"{name}: the agent's forwarding table", "bold")
    if status["forwarding"] is None:
        print("(the agent does not answer)\n")
        return
    columns(("subnet", "sent to"), ((entry["subnet"], entry["via"]) for entry in status["forwarding"]))
    print()


def descriptions(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one object after the other, as `describe` does."""
    for number, one in enumerate(found):
        if number:
            print("\n")
        headings_and_values(one)


def headings_and_values(value: Mapping[str, Any], indent: int = 0) -> None:
    """Print `describe`: one heading per line, nested ones indented."""
    width = max((len(str(key)) for key in value), default=0) + 2
    margin = " " * indent
    for key, entry in value.items():
        label = f"{margin}{key}:"
        if isinstance(entry, Mapping) and entry:
            print(label)
            headings_and_values(entry, indent + 2)
        elif isinstance(entry, list) and entry:
            print(label)
            for line in entry:
                print(f"{margin}  {line}")
        else:
            print(f"{label:<{width + indent}} {_plain(entry)}")


def _plain(value: object) -> str:
    if value is None or value in ({}, []):
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def pings(results: "Sequence[PingAnswer]") -> None:
    """Print a matrix: senders down, targets across, round-trip time in ms; a line per sender if that is too wide."""
    if not results:
        print("no pods to ping")
        return
    if len({result["destination"] for result in results}) > MATRIX_TARGETS:
        _ping_lines(results)
    else:
        _ping_matrix(results)
    lost, skipped = sum(map(_lost, results)), sum(bool(result["skipped"]) for result in results)
    sent, received = (sum(result[what] for result in results) for what in ("sent", "received"))
    pairs = "1 pair" if len(results) == 1 else f"{len(results)} pairs"
    print(f"\n{pairs}, {sent} sent, {received} received, {lost} lost{f', {skipped} skipped' if skipped else ''}")
    for result in results:
        if result["received"] < result["sent"]:
            why = f"skipped ({result['skipped']})" if result["skipped"] else result["error"] or "no reply"
            print(f"  {result['source']} -> {result['destination']} ({result['address']}): {why}")


def _ping_matrix(results: "Sequence[PingAnswer]") -> None:
    sources = list(dict.fromkeys(result["source"] for result in results))
    found = dict.fromkeys(result["destination"] for result in results)
    targets = sorted(found, key=lambda name: sources.index(name) if name in sources else len(sources))
    by_pair = {(result["source"], result["destination"]): result for result in results}
    matrix(
        ("FROM \\ TO", *targets),
        ((source, *(_ping_cell(by_pair.get((source, target))) for target in targets)) for source in sources),
    )


def _ping_lines(results: "Sequence[PingAnswer]") -> None:
    by_source: dict[str, list[PingAnswer]] = {}
    for result in results:
        by_source.setdefault(result["source"], []).append(result)
    columns(
        ("from", "targets", "reached", "lost", "ttl", "fastest", "median", "slowest"),
        ((source, *_ping_summary(own)) for source, own in by_source.items()),
    )


def _ping_summary(own: "Sequence[PingAnswer]") -> tuple[object, ...]:
    """Summarize one sender: how many of its targets replied, requests lost, ttl values seen, round-trip times."""
    times = sorted(time for result in own for time in result["rtt_ms"])
    shown = [f"{time:.2f} ms" for time in (times[0], times[len(times) // 2], times[-1])] if times else ["-"] * 3
    ttls = sorted({result["ttl"] for result in own if result["ttl"] is not None})
    reached = sum(1 for result in own if result["received"])
    lost = sum(map(_lost, own))
    return (len(own), reached, lost, ",".join(map(str, ttls)) or "-", *shown)


def _ping_cell(result: "PingAnswer | None") -> str:
    if result is None:
        return "."
    if not result["received"]:
        return "skipped" if result["skipped"] else "lost"
    return f"{min(result['rtt_ms']):.2f} ms ttl={result['ttl']}"


def _lost(result: "PingAnswer") -> int:
    return 0 if result["skipped"] else int(result["sent"] - result["received"])


def rate(bits_per_second: float) -> str:
    """Format a throughput with three or four significant digits."""
    if bits_per_second >= 1e9:
        return f"{bits_per_second / 1e9:.2f} Gbit/s"
    return f"{bits_per_second / 1e6:.1f} Mbit/s"


def events(found: "Sequence[EventLine]") -> None:
    """Print events, oldest first."""
    columns(
        ("at", "type", "object", "reason", "message"),
        ((event["at"], event["type"], event["object"], event["reason"], event["message"]) for event in found),
    )
