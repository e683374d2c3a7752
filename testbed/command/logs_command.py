"""The verb `logs`."""

import time

import click

from testbed.cluster.kinds import POD
from testbed.cluster.object_key import DEFAULT_NAMESPACE
from testbed.cluster.selectors import selected
from testbed.command.command_line import GoDuration, bare_name, lab_option, namespace_option, verbs
from testbed.command.completion import names
from testbed.command.object_words import name_of
from testbed.command.selectors import read_selector, selector_option
from testbed.control.client import ask, find_lab
from testbed.control.questions import GET, LOGS
from testbed.errors import TestbedError

MOST_LINES = 1_000_000_000
"""More than any log has."""
LINES_OF_EACH = 10
"""For pods found by labels, as in kubectl."""


@verbs.command()
@click.argument("name", required=False, metavar="POD|NODE|ETCD|lab", shell_complete=names("pods", "nodes", "etcd"))
@click.option("-c", "--container", metavar="C", help="Container of the pod; by default the first.")
@click.option("--all-containers", is_flag=True, help="All containers of the pod, init containers first.")
@click.option("-p", "--previous", is_flag=True, help="Output of the container's previous run.")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=-1), metavar="N", help="Only the last N lines; 10 with -l, -1: all.")
@click.option("--since", type=GoDuration(), metavar="5s|2m|3h", help="Only lines of a pod written in this last time.")
@click.option("--timestamps", is_flag=True, help="Prefix each line of a pod with the time when it was written.")
@click.option("--prefix", is_flag=True, help="Prefix each line with its pod and container.")
@selector_option
@namespace_option
@lab_option
def logs(
    name: str | None,
    container: str | None,
    all_containers: bool,
    previous: bool,
    follow: bool,
    tail: int | None,
    since: float | None,
    timestamps: bool,
    prefix: bool,
    selector: str | None,
    namespace: str | None,
    lab: str | None,
) -> int:
    """Show a pod's output, a node's agent log, etcd's log, or the lab's own; with -l the output of several pods."""
    from testbed.output import terminal

    if bool(name) == bool(selector):
        raise click.UsageError("want POD|NODE|ETCD|lab, or -l LABELS", click.get_current_context())
    if container and all_containers:
        raise click.UsageError("want -c or --all-containers, not both", click.get_current_context())
    if previous and follow:
        raise click.UsageError("want -p or -f, not both", click.get_current_context())
    requirements = read_selector(selector)
    record, several = find_lab(lab), None
    if requirements:
        pods = selected(ask(record, GET, kind=POD.plural, namespace=namespace or DEFAULT_NAMESPACE), requirements)
        several = list(map(name_of, pods))
        if not several:
            raise TestbedError(f"no pod has these labels (got {selector})")
    if tail is None and requirements:
        tail = LINES_OF_EACH
    return terminal.run(
        record,
        LOGS,
        terminal=False,
        name=bare_name(name) if name else None,
        names=several,
        namespace=namespace,
        container=container,
        all_containers=all_containers,
        previous=previous,
        follow=follow,
        prefix=prefix,
        since=None if since is None else time.time() - since,
        timestamps=timestamps,
        tail=None if tail in (None, -1) else min(tail, MOST_LINES),
    )
