"""Every verb of `testbed`: arguments in, one request to the lab, the answer on the terminal."""

import difflib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from testbed.client import LabRecord, TestbedError, ask, find_lab, running_labs

KINDS = {
    **dict.fromkeys(("nodes", "node", "no"), "nodes"),
    **dict.fromkeys(("pods", "pod", "po"), "pods"),
    **dict.fromkeys(("services", "service", "svc"), "services"),
    **dict.fromkeys(("leases", "lease"), "leases"),
    **dict.fromkeys(("routes", "route"), "routes"),
    "all": "all",
}
WATCH_PERIOD_S = 1.0
EXIT_INTERRUPTED = 130


class Verbs(click.Group):
    """A group that knows what was probably meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 - click's own type
        """As click does, with the nearest verb in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f" - did you mean {near[0]}?" if near else f" (want one of {', '.join(sorted(self.commands))})"
            raise click.UsageError(f"no such verb: {args[0]}{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In the order in which a user needs them."""
        rows = [(name, command.get_short_help_str(90)) for name, command in self.commands.items()]
        with formatter.section("Verbs"):
            formatter.write_dl(rows)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="overlay-testbed", message="testbed %(version)s")
def verbs() -> None:
    """A Kubernetes-like pod network on this machine, out of real parts.

    \b
    sudo testbed up          nginx on one node, tomcat on the other, joined by the overlay
    sudo testbed ping        every pod reaches every pod
    sudo testbed down        nothing is left
    """


def main() -> None:
    """Entry point: runs the verb, prints one line for whatever goes wrong, exits with the documented code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        code = verbs.main(prog_name="testbed", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "testbed"
        _complain(f"{where}: {error.format_message()} (help: {where} --help)")
        code = 2
    except TestbedError as error:
        _complain(str(error))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(line if line.startswith("error: ") else f"error: {line}", file=sys.stderr)


def _lab_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--lab", metavar="LAB", help="Which lab, when several run (or TESTBED_LAB).")(function)


def _output_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("-o", "--output", type=click.Choice(formats), help="Another form of the answer.")


def _needs_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise TestbedError(f"testbed {verb}: needs root (got uid {os.geteuid()}; want: sudo testbed {verb})", 3)


def next_commands(lab_name: str, *commands: str) -> None:
    """The last lines of a verb: what to do next, ready to be pasted."""
    chosen = f" --lab {lab_name}" if len(running_labs()) > 1 else ""
    print("\nnext:")
    for command in commands:
        verb, _, rest = command.partition(" ")
        print(f"  sudo testbed {verb}{chosen}{' ' if rest else ''}{rest}")


@verbs.command()
@click.argument("cluster", required=False, metavar="[FILE|NAME]")
@click.option("--lab", metavar="LAB", help="Name of the lab; by default the cluster's own.")
@click.option("--nodes", type=int, metavar="N", help="Make a cluster of N nodes instead of reading a file.")
@click.option("--pods-per-node", type=int, metavar="M", help="With --nodes: M light pods on each.  [default: 2]")
@click.option("--no-agent", multiple=True, metavar="NODE", help="Print NODE's agent command instead of running it.")
@click.option("--cleanup-on-failure", is_flag=True, help="Remove a lab that did not get ready.")
@click.option("--cli", "prompt", is_flag=True, help="Open Mininet's prompt; the lab goes down on leaving it.")
def up(
    cluster: str | None,
    lab: str | None,
    nodes: int | None,
    pods_per_node: int | None,
    no_agent: tuple[str, ...],
    cleanup_on_failure: bool,
    prompt: bool,
) -> int:
    """Build a lab from a cluster file and wait until all of it works.

    NAME is a cluster that comes with the testbed (see: testbed topologies); default nginx_tomcat.
    """
    from testbed.up import UpOptions, bring_up

    if nodes is None and pods_per_node is not None:
        raise click.UsageError("--pods-per-node goes with --nodes", click.get_current_context())
    if nodes is not None and cluster is not None:
        raise click.UsageError(f"--nodes makes a cluster of its own (got {cluster} too)", click.get_current_context())
    _needs_root("up")
    options = UpOptions(
        cluster, lab, nodes, 2 if pods_per_node is None else pods_per_node, no_agent, cleanup_on_failure
    )
    code = bring_up(options)
    if prompt and code == 0:
        from testbed import terminal
        from testbed.launch import remove

        record = find_lab(lab or options.resolved_name)
        try:
            return terminal.run(record, "cli", terminal=os.isatty(0))
        finally:
            remove(record)
    return code


@verbs.command()
@_lab_option
@click.option("--all", "everything", is_flag=True, help="Every lab that runs.")
def down(lab: str | None, everything: bool) -> None:
    """Take a lab down; nothing of it is left."""
    from testbed.launch import remove, remove_leftovers

    _needs_root("down")
    labs = running_labs()
    if lab or os.environ.get("TESTBED_LAB") or (len(labs) > 1 and not everything):
        labs = [find_lab(lab)]
    for record in labs:
        remove(record)
        print(f"lab {record.name} is down")
    remove_leftovers()
    if not labs:
        print("no lab is running")


@verbs.command()
@_lab_option
@_output_option("json")
def status(lab: str | None, output: str | None) -> None:
    """Show nodes and pods at a glance."""
    from testbed import render

    records = [find_lab(lab)] if lab or os.environ.get("TESTBED_LAB") else running_labs() or [find_lab(None)]
    answers = [{**ask(record, "status"), "pid": record.pid} for record in records]
    if output == "json":
        return render.as_json(answers[0] if len(answers) == 1 else answers)
    for number, answer in enumerate(answers):
        if number:
            print()
        render.status(answer)
    return None


@verbs.command()
@click.argument("kind", metavar="nodes|pods|services|leases|routes|all")
@click.argument("name", required=False)
@_lab_option
@_output_option("wide", "json", "yaml")
@click.option("-l", "--selector", metavar="KEY=VALUE", help="Only objects with this label.")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
def get(kind: str, name: str | None, lab: str | None, output: str | None, selector: str | None, watch: bool) -> None:
    """Show objects: nodes (no), pods (po), services (svc), leases, routes."""
    kind, _, name_in_kind = kind.partition("/")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" - did you mean {near[0]}?" if near else ""
        raise click.UsageError(f"no such kind: {kind}{hint}", click.get_current_context())
    record = find_lab(lab)
    kinds = ["nodes", "pods", "services"] if kind == "all" else [KINDS[kind]]
    before: object = None
    while True:
        found = {one: _selected(ask(record, "get", kind=one, name=name_in_kind or name), selector) for one in kinds}
        if found != before:
            _show_objects(found, output)
        if not watch:
            return
        before = found
        time.sleep(WATCH_PERIOD_S)


def _selected(found: list[dict[str, Any]], selector: str | None) -> list[dict[str, Any]]:
    if selector is None:
        return found
    key, _, value = selector.partition("=")
    return [item for item in found if (item["metadata"].get("labels") or {}).get(key) == value]


def _show_objects(found: dict[str, list[dict[str, Any]]], output: str | None) -> None:
    from testbed import render

    if output in ("json", "yaml"):
        items = [item for group in found.values() for item in group]
        value = items[0] if len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": items}
        return render.as_json(value) if output == "json" else render.as_yaml(value)
    for number, (kind, group) in enumerate(found.items()):
        if number:
            print()
        render.objects(kind, group, wide=output == "wide")
    return None


@verbs.command()
@click.argument("kind", metavar="node|pod")
@click.argument("name", required=False)
@_lab_option
@_output_option("json")
def describe(kind: str, name: str | None, lab: str | None, output: str | None) -> None:
    """Show everything about one node or pod."""
    from testbed import render

    kind, _, name_in_kind = kind.partition("/")
    if KINDS.get(kind) not in ("nodes", "pods") or not (name or name_in_kind):
        raise click.UsageError(
            f"want node NAME or pod NAME (got {kind} {name or ''})".replace(" )", ")"), click.get_current_context()
        )
    record = find_lab(lab)
    answer = ask(record, "describe", kind=KINDS[kind], name=name_in_kind or name)
    if "nsenter" in answer:
        answer["Look inside"].append(_nsenter_line(record, answer.pop("nsenter")["pid"]))
    if output == "json":
        return render.as_json(answer)
    return render.headings_and_values(answer)


def _nsenter_line(record: LabRecord, pid_in_lab: int) -> str:
    """The line that works from the host: into the lab first, then into the node."""
    inside = f"nsenter --target {pid_in_lab} --net --mount --wdns=/"
    return f"sudo nsenter --target {record.pid} --mount --pid {inside} bash"


@verbs.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("name", metavar="POD|NODE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD…")
@click.option("-c", "--container", metavar="C", help="Which container of the pod; by default the first.")
@click.option("-i", "--stdin", "interactive", is_flag=True, help="For kubectl's habit; input is always passed on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@_lab_option
def exec_(
    name: str, command: Sequence[str], container: str | None, interactive: bool, tty: bool, lab: str | None
) -> int:
    """Run a command in a pod or on a node: exec client -- curl -s http://10.0.90.2:8080/"""
    from testbed import terminal

    if not command:
        raise click.UsageError("no command (want: exec POD|NODE -- CMD…)", click.get_current_context())
    return terminal.run(
        find_lab(lab), "exec", terminal=tty, name=_bare(name), container=container, argv=list(command), tty=tty
    )


@verbs.command()
@click.argument("name", required=False, metavar="[POD|NODE]")
@click.option("-c", "--container", metavar="C", help="Which container of the pod; by default the first.")
@click.option("--tmux", nargs=2, metavar="A B", help="Two shells side by side in tmux.")
@_lab_option
def shell(name: str | None, container: str | None, tmux: tuple[str, str] | None, lab: str | None) -> int:
    """Open a shell in a pod, on a node, or (without a name) in the lab's own namespaces.

    There `ip netns exec node1 …` works for every node and pod.
    """
    from testbed import terminal

    record = find_lab(lab)
    if tmux:
        _side_by_side(record, tmux)
    return terminal.run(record, "shell", terminal=os.isatty(0), name=_bare(name) if name else None, container=container)


def _side_by_side(record: LabRecord, names: tuple[str, str]) -> None:
    import shlex
    import shutil

    if shutil.which("tmux") is None:
        raise TestbedError("shell --tmux: tmux is missing (want: apt-get install tmux)", 3)
    first, second = (
        shlex.join([sys.executable, "-m", "testbed", "shell", "--lab", record.name, name]) for name in names
    )
    os.execvp("tmux", ["tmux", "new-session", first, ";", "split-window", "-h", second])


@verbs.command()
@_lab_option
def cli(lab: str | None) -> int:
    """Open Mininet's own prompt on the running lab; leaving it keeps the lab."""
    from testbed import terminal

    return terminal.run(find_lab(lab), "cli", terminal=os.isatty(0))


@verbs.command()
@click.argument("name", metavar="POD|NODE|ETCD|lab")
@click.option("-c", "--container", metavar="C", help="Which container of the pod; by default the first.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@_lab_option
def logs(name: str, container: str | None, follow: bool, tail: int | None, lab: str | None) -> int:
    """Show a pod's output, a node's agent log, etcd's log, or the lab's own."""
    from testbed import terminal

    return terminal.run(
        find_lab(lab), "logs", terminal=False, name=_bare(name), container=container, follow=follow, tail=tail
    )


@verbs.command()
@_lab_option
@_output_option("json")
@click.option("-w", "--watch", is_flag=True, help="Go on as more happens, until Ctrl-C.")
def events(lab: str | None, output: str | None, watch: bool) -> None:
    """Show what happened, oldest first."""
    from testbed import render

    record = find_lab(lab)
    shown: list[dict[str, Any]] = []
    while True:
        found = ask(record, "events")
        fresh = found[len(shown) :] if found[: len(shown)] == shown else found
        if fresh or not shown:
            render.as_json(fresh) if output == "json" else render.events(fresh)
        if not watch:
            return
        shown = found
        time.sleep(WATCH_PERIOD_S)


@verbs.command()
@click.argument("source", required=False, metavar="[SRC")
@click.argument("destination", required=False, metavar="DST]")
@click.option("-n", "--count", type=click.IntRange(1, 1000), metavar="N", help="Requests for each pair.  [default: 1]")
@_lab_option
@_output_option("json")
def ping(source: str | None, destination: str | None, count: int | None, lab: str | None, output: str | None) -> int:
    """Ping every pod from every pod, or DST (pod, node or address) from SRC."""
    from testbed import render

    if source is not None and destination is None:
        raise click.UsageError("want both SRC and DST, or neither", click.get_current_context())
    source, destination = source and _bare(source), destination and _bare(destination)
    results = ask(find_lab(lab), "ping", count=count or 1, source=source, destination=destination)
    render.as_json(results) if output == "json" else render.pings(results)
    return 0 if all(result["received"] == result["sent"] for result in results) else 1


@verbs.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-u", "--udp", is_flag=True, help="UDP as fast as it goes, instead of TCP.")
@click.option("-t", "--seconds", type=click.IntRange(1, 3600), default=5, show_default=True)
@_lab_option
@_output_option("json")
def iperf(source: str, destination: str, udp: bool, seconds: int, lab: str | None, output: str | None) -> None:
    """Measure throughput from SRC to DST (pods or nodes) with iperf3."""
    from testbed import render

    with render.waiting(f"iperf3 {source} -> {destination}", seconds):
        answer = ask(
            find_lab(lab), "iperf", source=_bare(source), destination=_bare(destination), seconds=seconds, udp=udp
        )
    if output == "json":
        return render.as_json(answer)
    lost = f", {answer['lost_percent']} % of {answer['packets']} packets lost" if udp else ""
    again = "" if udp else f", {answer['retransmits']} retransmits"
    print(f"{source} -> {destination}: {answer['bits_per_second'] / 1e9:.3f} Gbit/s {answer['protocol']}{lost}{again}")
    return None


@verbs.group(cls=Verbs)
def restart() -> None:
    """Restart parts of the lab."""


@restart.command(name="agent")
@click.argument("nodes", nargs=-1, metavar="NODE…")
@click.option("--all", "everything", is_flag=True, help="The agents of all nodes.")
@_lab_option
def restart_agent(nodes: tuple[str, ...], everything: bool, lab: str | None) -> None:
    """Restart agents with the code as it is now, and wait until they are ready."""
    if bool(nodes) == everything:
        raise click.UsageError("want NODE… or --all", click.get_current_context())
    for line in ask(find_lab(lab), "restart", nodes=[_bare(node) for node in nodes]):
        print(line)


@verbs.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- ARGS…")
@_lab_option
def etcdctl(arguments: Sequence[str], lab: str | None) -> int:
    """Run the real etcdctl on the lab's etcd: etcdctl -- get --prefix /coreos.com/network"""
    from testbed import terminal

    return terminal.run(find_lab(lab), "etcdctl", terminal=False, argv=list(arguments))


@verbs.command()
@click.argument("cluster", metavar="FILE|NAME")
@_output_option("json")
def validate(cluster: str, output: str | None) -> None:
    """Check a cluster file and say everything that is wrong with it. Needs no root."""
    from testbed import render
    from testbed.problems import SpecError
    from testbed.spec import find_cluster

    try:
        found = find_cluster(cluster)
    except SpecError as error:
        raise TestbedError(str(error), 2) from error
    summary = {"cluster": found.name, "nodes": list(found.nodes), "pods": [pod.name for pod in found.pods]}
    if output == "json":
        return render.as_json(summary)
    print(f"{found.name} is valid: {len(found.nodes)} nodes, {len(found.pods)} pods")
    return None


@verbs.command()
@_output_option("json")
def topologies(output: str | None) -> None:
    """List the clusters that come with the testbed. Needs no root."""
    from testbed import render
    from testbed.spec import cluster_names, find_cluster

    rows = [
        {"name": name, "nodes": len(cluster.nodes), "pods": len(cluster.pods), "topology": cluster.underlay.topology}
        for name in cluster_names()
        for cluster in (find_cluster(name),)
    ]
    if output == "json":
        return render.as_json(rows)
    render.columns(("cluster", "nodes", "pods", "topology"), [tuple(row.values()) for row in rows])
    print("\nnext:\n  sudo testbed up two_nodes")
    return None


@verbs.command()
@_output_option("json")
def doctor(output: str | None) -> int:
    """Check what this machine offers and say how to get what is missing."""
    from dataclasses import asdict

    from testbed import render
    from testbed.doctor import checks, required_failures

    found = checks()
    failures = required_failures(found)
    if output == "json":
        render.as_json([asdict(check) for check in found])
        return 3 if failures else 0
    render.columns(
        ("check", "ok", "found", "needed for"),
        ((check.name, "yes" if check.ok else "no", check.found, check.needed_for or "every lab") for check in found),
    )
    for check in found:
        if not check.ok:
            print(f"{check.name}: want {check.want}: {check.remedy}")
    print("\na lab can run here" if not failures else "\na lab cannot run here yet")
    return 3 if failures else 0


def _bare(name: str) -> str:
    """`pod/nginx` as kubectl users write it, without the kind."""
    kind, slash, rest = name.partition("/")
    return rest if slash and KINDS.get(kind) in ("pods", "nodes") else name
