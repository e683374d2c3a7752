"""Verbs for what is in the lab: get, describe, exec, shell, events, ping, iperf."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from testbed.cluster.kinds import EVENT, KINDS, Kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE
from testbed.cluster.selectors import Requirement, selected
from testbed.command.command_line import (
    all_namespaces_option,
    bare_name,
    lab_option,
    namespace_option,
    output_option,
    verbs,
)
from testbed.command.completion import kind_and_names, names, namespaces
from testbed.command.object_words import Meant, name_of, objects_meant
from testbed.command.selectors import read_selector, selector_option
from testbed.control.client import LabRecord, ask, find_lab
from testbed.control.questions import DESCRIBE, EVENTS, EXEC, GET, IPERF, PING, SHELL
from testbed.errors import TestbedError, WrongEnvironment
from testbed.output.next_commands import ready_to_paste
from testbed.spelling import listed

if TYPE_CHECKING:
    from testbed.control.answers.lab import Description

Found = dict[Kind, Sequence[Any]]
"""Objects by kind, in display order."""
WATCH_PERIOD_S = 1.0


def _with_short_names(kind: Kind) -> str:
    return f"{kind.plural} ({', '.join(kind.short_names)})" if kind.short_names else kind.plural


@verbs.command(
    help=f"Show objects: {', '.join(map(_with_short_names, KINDS))}; several as po,svc or po/a svc/b.",
    short_help="Show objects: get pods, get po,svc, get all, …; `get --help` names every kind.",
)
@click.argument("words", nargs=-1, required=True, metavar="KIND[,KIND…] [NAME…]", shell_complete=kind_and_names)
@namespace_option
@all_namespaces_option
@lab_option
@output_option("wide", "json", "yaml", "name")
@selector_option
@click.option("--show-labels", is_flag=True, help="A column of labels.")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
def get(
    words: tuple[str, ...],
    namespace: str | None,
    all_namespaces: bool,
    lab: str | None,
    output: str | None,
    selector: str | None,
    show_labels: bool,
    watch: bool,
) -> None:
    meant = objects_meant(words, KINDS, may_be_all=True)
    requirements = read_selector(selector)
    named = sum(map(len, meant.values()))
    if all_namespaces and (named or namespace):
        got = f"-n {namespace}" if namespace else "names"
        raise click.UsageError(f"-A shows all objects (got {got} too; want one of them)", click.get_current_context())
    where = None if all_namespaces else namespace or DEFAULT_NAMESPACE
    record = find_lab(lab)
    before: object = None
    while True:
        found, missing = _find(record, meant, where)
        found = {kind: selected(group, requirements) for kind, group in found.items()}
        if found != before and not any(found.values()) and output in (None, "wide") and not missing:
            print(_nothing(record, found, where, requirements))
        elif found != before:
            _show_objects(
                found,
                output,
                is_one=named == 1 == len(meant),
                with_namespace=where is None,
                with_labels=show_labels,
            )
        if missing:
            raise TestbedError("\n".join(missing))
        if not watch:
            return
        before = found
        time.sleep(WATCH_PERIOD_S)


def _find(record: LabRecord, meant: Meant, namespace: str | None) -> tuple[Found, list[str]]:
    """Return the objects by kind, and a line for each name that does not exist; None: of all namespaces."""
    found: Found = {}
    missing: list[str] = []
    for kind, typed in meant.items():
        if not typed:
            found[kind] = ask(record, GET, kind=kind.plural, namespace=namespace)
            continue
        found[kind] = []
        for name in typed:
            try:
                one = ask(record, GET, kind=kind.plural, name=name, namespace=namespace)
                found[kind] = [*found[kind], *one]
            except TestbedError as failure:
                missing.append(_missing(failure))
    return found, missing


def _missing(failure: TestbedError) -> str:
    """Return the line about a name that does not exist; raise any other failure: one of etcd, for example."""
    if failure.exit_code != TestbedError.exit_code:
        raise failure
    return str(failure)


def _show_objects(found: Found, output: str | None, *, is_one: bool, with_namespace: bool, with_labels: bool) -> None:
    """Show objects as columns, or in kubectl's JSON form: a List, or the object itself if one was named."""
    from testbed.output import tables as render

    if output == "name":
        for kind, group in found.items():
            for item in group:
                print(f"{kind.singular}/{name_of(item)}")
        return None
    if output in ("json", "yaml"):
        items = [item for group in found.values() for item in group]
        value = items[0] if is_one and len(items) == 1 else _list_of(items)
        return render.as_json(value) if output == "json" else render.as_yaml(value)
    shown = {kind: group for kind, group in found.items() if group}
    for number, (kind, group) in enumerate(shown.items()):
        if number:
            print()
        render.objects(
            kind,
            group,
            wide=output == "wide",
            with_kind=len(found) > 1,
            with_namespace=with_namespace,
            with_labels=with_labels,
        )
    return None


def _nothing(
    record: LabRecord, kinds: Iterable[Kind], namespace: str | None, requirements: Sequence[Requirement]
) -> str:
    """Return the message for an empty result, with the counts of other namespaces."""
    words = f"no {listed(kind.plural for kind in kinds)}"
    inside = [kind for kind in kinds if kind.namespaced]
    if namespace is None or not inside:
        return words
    elsewhere = sum(len(selected(ask(record, GET, kind=kind.plural), requirements)) for kind in inside)
    if elsewhere:
        return f"{words} in namespace {namespace} ({elsewhere} in others: get -A)"
    return words if namespace == DEFAULT_NAMESPACE else f"{words} in namespace {namespace}"


def _list_of(items: Sequence[Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": list(items)}


@verbs.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME…]", shell_complete=kind_and_names)
@namespace_option
@lab_option
@output_option("json")
@selector_option
def describe(
    words: tuple[str, ...], namespace: str | None, lab: str | None, output: str | None, selector: str | None
) -> None:
    """Show everything about objects: describe pod NAME…, describe deploy/web svc/web; without names all of a kind."""
    from testbed.output import tables as render

    meant = objects_meant(words, [kind for kind in KINDS if kind.described])
    requirements = read_selector(selector)
    named = sum(map(len, meant.values()))
    if requirements and named:
        raise click.UsageError("want names, or -l LABELS", click.get_current_context())
    record = find_lab(lab)
    found: list[Description] = []
    missing: list[str] = []
    where = namespace or DEFAULT_NAMESPACE
    for kind, typed in meant.items():
        for name in typed or map(name_of, selected(ask(record, GET, kind=kind.plural, namespace=where), requirements)):
            try:
                found.append(_described(record, kind, name, where))
            except TestbedError as failure:
                missing.append(_missing(failure))
    if output == "json":
        render.as_json(found[0] if named == len(found) == 1 else found)
    else:
        render.descriptions(found)
        if not found and not named:
            print(_nothing(record, meant, where, requirements))
    if missing:
        raise TestbedError("\n".join(missing))


def _described(record: LabRecord, kind: Kind, name: str, namespace: str) -> "Description":
    answer = ask(record, DESCRIBE, kind=kind.plural, name=name, namespace=namespace)
    answer["Look inside"] = [ready_to_paste(record.name, look) for look in answer["Look inside"]]
    if "nsenter" in answer:
        answer["Look inside"].append(_nsenter_line(record, answer.pop("nsenter")["pid"]))
    return answer


def _nsenter_line(record: LabRecord, pid_in_lab: int) -> str:
    """Return the line that works on the host: into the lab first, then into the node."""
    inside = f"nsenter --target {pid_in_lab} --net --mount --wdns=/"
    if record.rootless:
        return f"nsenter --target {record.pid} --user --preserve-credentials --mount --pid {inside} bash"
    return f"sudo nsenter --target {record.pid} --mount --pid {inside} bash"


@verbs.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("name", metavar="POD|NODE", shell_complete=names("pods", "nodes"))
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD…")
@click.option("-c", "--container", metavar="C", help="Which container of the pod; by default the first.")
@click.option("-i", "--stdin", "interactive", is_flag=True, help="For kubectl's users; input is always passed on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@namespace_option
@lab_option
def exec_(
    name: str,
    command: Sequence[str],
    container: str | None,
    interactive: bool,
    tty: bool,
    namespace: str | None,
    lab: str | None,
) -> int:
    """Run a command in a pod or on a node: exec client -- curl -s http://10.0.90.2:8080/

    When you leave, all of its terminal's session ends; a daemon, in its own session, stays.
    """
    from testbed.output import terminal

    if not command or not command[0]:
        raise click.UsageError("no command (want: exec POD|NODE -- CMD…)", click.get_current_context())
    return terminal.run(
        find_lab(lab),
        EXEC,
        terminal=tty,
        name=bare_name(name),
        namespace=namespace,
        container=container,
        argv=list(command),
        tty=tty,
    )


@verbs.command()
@click.argument("name", required=False, metavar="[POD|NODE]", shell_complete=names("pods", "nodes"))
@click.option("-c", "--container", metavar="C", help="Which container of the pod; by default the first.")
@click.option("--tmux", nargs=2, metavar="A B", help="Two shells side by side in tmux.")
@namespace_option
@lab_option
def shell(
    name: str | None, container: str | None, tmux: tuple[str, str] | None, namespace: str | None, lab: str | None
) -> int:
    """Open a shell in a pod, on a node, or (without a name) in the lab's own namespaces.

    There `ip netns exec node1 …` works for every node and pod.
    """
    from testbed.output import terminal

    record = find_lab(lab)
    if tmux:
        _side_by_side(record, tmux, namespace)
    return terminal.run(
        record,
        SHELL,
        terminal=os.isatty(0),
        name=bare_name(name) if name else None,
        namespace=namespace,
        container=container,
    )


def _side_by_side(record: LabRecord, names: tuple[str, str], namespace: str | None) -> None:
    import shlex
    import shutil

    if shutil.which("tmux") is None:
        raise WrongEnvironment("shell --tmux: tmux is missing (want: apt-get install tmux)")
    where = ["--lab", record.name, *(["-n", namespace] if namespace else ())]
    shell = [sys.executable, "-P", "-m", "testbed", "shell", *where]
    first, second = (shlex.join([*shell, name]) for name in names)
    os.execvp("tmux", ["tmux", "new-session", first, ";", "split-window", "-h", second])


@verbs.command()
@click.option("-n", "--namespace", metavar="NAMESPACE", shell_complete=namespaces, help="Only of its objects.")
@lab_option
@output_option("json")
@click.option("-w", "--watch", is_flag=True, help="Follow events until Ctrl-C.")
def events(namespace: str | None, lab: str | None, output: str | None, watch: bool) -> None:
    """Show events of the whole lab, oldest first."""
    from testbed.output import tables as render

    record = find_lab(lab)
    shown: Sequence[Any] | None = None
    while True:
        # Kubernetes' shape is four times as long, and only programs need it.
        found = (
            ask(record, GET, kind=EVENT.plural, namespace=namespace)
            if output == "json"
            else ask(record, EVENTS, namespace=namespace)
        )
        fresh = new_events(shown or [], found)
        if fresh or shown is None:
            render.as_json(_list_of(fresh)) if output == "json" else render.events(fresh)
        if not watch:
            return
        shown = found
        time.sleep(WATCH_PERIOD_S)


def new_events(shown: Sequence[Any], found: Sequence[Any]) -> Sequence[Any]:
    """Return the events that came after those shown; the lab may have forgotten the first of these."""
    kept = next(number for number in range(len(shown), -1, -1) if shown[len(shown) - number :] == found[:number])
    return found[kept:]


@verbs.command()
@click.argument("source", required=False, metavar="[SRC", shell_complete=names("pods"))
@click.argument("destination", required=False, metavar="DST]", shell_complete=names("pods"))
@click.option("-c", "--count", type=click.IntRange(1, 1000), metavar="N", help="Requests for each pair.  [default: 1]")
@click.option("-6", "--ipv6", is_flag=True, help="By IPv6 addresses, on a dual-stack network.")
@namespace_option
@lab_option
@output_option("json")
def ping(
    source: str | None,
    destination: str | None,
    count: int | None,
    ipv6: bool,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> int:
    """Ping every pod from every pod, with -n those of a namespace, or DST (pod, node or address) from SRC."""
    from testbed.output import tables as render

    if source is not None and destination is None:
        raise click.UsageError("want both SRC and DST, or neither", click.get_current_context())
    source, destination = source and bare_name(source), destination and bare_name(destination)
    results = ask(
        find_lab(lab),
        PING,
        count=count or 1,
        source=source,
        destination=destination,
        namespace=namespace,
        ipv6=ipv6,
    )
    render.as_json(results) if output == "json" else render.pings(results)
    return 0 if all(result["received"] == result["sent"] or result["skipped"] for result in results) else 1


@verbs.command()
@click.argument("source", metavar="SRC", shell_complete=names("pods"))
@click.argument("destination", metavar="DST", shell_complete=names("pods"))
@click.option("-u", "--udp", is_flag=True, help="UDP at full speed, instead of TCP.")
@click.option("-6", "--ipv6", is_flag=True, help="By IPv6 addresses, on a dual-stack network.")
@click.option(
    "-t",
    "--seconds",
    type=click.IntRange(1, 3600),
    default=5,
    show_default=True,
    help="Send for this many seconds.",
)
@namespace_option
@lab_option
@output_option("json")
def iperf(
    source: str,
    destination: str,
    udp: bool,
    ipv6: bool,
    seconds: int,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> None:
    """Measure throughput from SRC to DST (pods or nodes) with iperf3."""
    from testbed.output import progress
    from testbed.output import tables as render

    with progress.waiting(f"iperf3 {source} -> {destination}", seconds):
        answer = ask(
            find_lab(lab),
            IPERF,
            source=bare_name(source),
            destination=bare_name(destination),
            namespace=namespace,
            seconds=seconds,
            udp=udp,
            ipv6=ipv6,
        )
    if output == "json":
        return render.as_json(answer)
    lost = f", {answer['lost_percent']} % of {answer['packets']} packets lost" if udp else ""
    again = "" if udp else f", {answer['retransmits']} retransmits"
    print(f"{source} -> {destination}: {render.rate(answer['bits_per_second'])} {answer['protocol']}{lost}{again}")
    return None
