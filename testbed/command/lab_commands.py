"""Verbs for the lab as a whole: up, down, status, doctor, cli, restart, and the cluster files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from testbed.command.command_line import (
    FiniteRange,
    Verbs,
    bare_name,
    images_option,
    lab_option,
    namespace_option,
    needs_root,
    one_lab_or_all,
    output_option,
    strict_option,
    verbs,
)
from testbed.command.completion import clusters, names
from testbed.control.client import LabRecord, ask, find_lab, running_labs
from testbed.control.questions import CLI, ETCDCTL, RESTART, STATUS
from testbed.errors import InvalidInput, TestbedError
from testbed.output.next_commands import next_commands
from testbed.spelling import listed

if TYPE_CHECKING:
    from testbed.control.options import LabOptions


def _not_empty(_context: click.Context, _parameter: click.Parameter, given: str | None) -> str:
    """Reject an empty argument: it is an empty variable, and must not select the default cluster."""
    if given == "":
        raise click.BadParameter("empty (want a file, a name, or no argument)")
    return given or ""


if TYPE_CHECKING:
    from testbed.control.answers.lab import StatusAnswer
    from testbed.control.answers.offline import ClusterLine, TopologiesAnswer, ValidateAnswer


@verbs.command()
@click.argument("cluster_file", required=False, callback=_not_empty, metavar="[FILE|NAME]", shell_complete=clusters)
@click.option("--lab", "name", default="", metavar="LAB", help="Name of the lab; by default the cluster's own.")
@click.option("--nodes", type=int, metavar="N", help="Generate a cluster of N nodes instead of reading a file.")
@click.option(
    "--topo",
    metavar="TOPO",
    help="Generate a cluster from a topology: NAME,PARAMETER=VALUE,… (see: testbed topologies), or a Mininet Topo class"
    " of your own: FILE.py:CLASS,PARAMETER=VALUE,… (or FILE.py,NAME,… with a NAME of its topos).",
)
@click.option("--pods-per-node", type=int, metavar="M", help="With --nodes or --topo: M light pods each.  [default: 2]")
@click.option(
    "--no-agent",
    "without_agent",
    multiple=True,
    metavar="NODE",
    help="Print NODE's agent command instead of running it.",
)
@click.option(
    "--datapath",
    type=click.Choice(["auto", "native", "python", "kernel"]),
    default="auto",
    help="Data path of the udp backend; auto uses native if it is compiled, kernel needs FOU.",
)
@click.option(
    "--backend",
    type=click.Choice(["udp", "vxlan", "host-gw", "ipip", "wireguard", "alloc"]),
    help="Backend type, instead of the cluster's own.",
)
@images_option
@strict_option
@click.option("--cleanup-on-failure", is_flag=True, help="Remove a lab that did not become ready.")
@click.option(
    "--timeout", "timeout_s", type=FiniteRange(min=1), metavar="SECONDS", help="How long each phase may take."
)
@click.option("--rootless", is_flag=True, help="Without root: a lab of your own in a user namespace.")
@click.option("--dry-run", is_flag=True, help="Print what would be created or changed, and do nothing.")
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", help="With exercise/N: select another variant.  [default: 0]"
)
@click.option("--cli", "prompt", is_flag=True, help="Open Mininet's prompt; leaving it takes the lab down.")
def up(prompt: bool, seed: int | None, **given: Any) -> int:  # noqa: ANN401 - the fields of LabOptions, each named as its parameter
    """Build a lab from a cluster file and wait until all of it works.

    NAME is a bundled cluster (see: testbed topologies); default nginx_tomcat. --topo and --nodes make one: hosts of the
    topology become its nodes, hosts with router=True or of a class named …Router forward between subnets, switches are
    Linux bridges, and links keep bw, delay, jitter, loss and max_queue_size.

    \b
    up --topo tree,depth=2,fanout=3 --pods-per-node 2
    up --topo ./rack.py:Rack,racks=3
    up exercise/1    a broken lab to repair; testbed check judges, testbed hint helps
    up mine.yaml     on a running lab: applies the changes of the file
    """
    from testbed.control.options import LabOptions
    from testbed.exercises.catalogue import CLUSTER, exercise_of
    from testbed.host.up import bring_up

    options = LabOptions(**given)
    exercise = exercise_of(options.cluster_file)
    if exercise is not None:
        name = options.name or os.environ.get("TESTBED_LAB") or exercise.lab
        options = replace(options, cluster_file=CLUSTER, name=name)
    elif seed is not None:
        raise click.UsageError("--seed goes with exercise/N", click.get_current_context())
    _refuse_wrong_mix(options)
    record = bring_up(options)
    if exercise is not None and record is not None:
        from testbed.command.check_command import begin

        begin(record, exercise, seed or 0)
    return _prompt(record) if prompt and record is not None else 0


def _refuse_wrong_mix(options: "LabOptions") -> None:
    made = [name for name, value in (("--nodes", options.nodes), ("--topo", options.topo)) if value is not None]
    if options.pods_per_node is not None and not made:
        raise click.UsageError("--pods-per-node goes with --nodes or --topo", click.get_current_context())
    if made and options.cluster_file:
        what = f"{made[-1]} generates a cluster (got {options.cluster_file} too)"
        raise click.UsageError(what, click.get_current_context())
    if not options.rootless:
        needs_root("up")
    elif os.geteuid() == 0:
        raise click.UsageError("--rootless is for an ordinary user (got uid 0)", click.get_current_context())


def _prompt(record: LabRecord) -> int:
    """Run Mininet's prompt; the lab ends with it."""
    from testbed.host.removal import remove
    from testbed.output import terminal

    try:
        return terminal.run(record, CLI, terminal=os.isatty(0))
    finally:
        remove(record)


@verbs.command()
@lab_option
@click.option("--all", "everything", is_flag=True, help="Every lab that runs.")
def down(lab: str | None, everything: bool) -> None:
    """Take a lab down and remove everything that belongs to it."""
    from testbed.host.removal import labs_to_end, remove_leftovers, take_down

    one_lab_or_all(lab, everything)
    name = None if everything else lab or os.environ.get("TESTBED_LAB")
    # An ordinary user cannot take down others' labs.
    labs = [one for one in labs_to_end() if name in (None, "", one.name)]
    if not labs and os.geteuid() != 0:
        needs_root("down")
    if len(labs) > 1 and not (name or everything):
        names = listed(one.name for one in labs)
        raise InvalidInput(f"several labs are running: {names} (choose one: --lab NAME, TESTBED_LAB or --all)")
    failures = []
    for one in labs:
        try:
            take_down(one)
            print(f"lab {one.name} is down")
        except TestbedError as failure:
            failures.append(str(failure))
    for dead, why in remove_leftovers().items():
        print(f"lab {dead} had died; {why or 'its directory is removed'}")
    if not labs:
        print(f"no lab named {name} is running" if name else "no lab is running")
    if failures:
        raise TestbedError("\n".join(failures))


@verbs.command()
@lab_option
@output_option("json")
def status(lab: str | None, output: str | None) -> None:
    """Show nodes and pods at a glance; where several labs run, a line for each."""
    from testbed.output import tables as render

    records = [find_lab(lab)] if lab or os.environ.get("TESTBED_LAB") else running_labs() or [find_lab(None)]
    if len(records) == 1:
        answer = _status_of(records[0])
        return render.as_json(answer) if output == "json" else render.status(answer)
    answers, failures = [], []
    for record in records:
        try:
            answers.append(_status_of(record))
        except TestbedError as failure:
            failures.append(str(failure))
    if output == "json":
        render.as_json(answers)
    elif answers:
        render.labs(answers)
        next_commands(answers[0]["lab"], "status")
    if failures:
        raise TestbedError("\n".join(failures))
    return None


def _status_of(record: LabRecord) -> "StatusAnswer":
    return {**ask(record, STATUS), "pid": record.pid}


@verbs.command()
@output_option("json")
def doctor(output: str | None) -> int:
    """Check this machine, and show how to get what is missing."""
    from testbed.control.client import runtime_directory
    from testbed.host import rootless
    from testbed.host.doctor import checks, missing_debian_packages, required_failures
    from testbed.host.packages import apt_lines
    from testbed.output import tables as render
    from testbed.places import IS_CLONE

    found = checks()
    without_root = () if os.geteuid() == 0 else rootless.checks(runtime_directory())
    failures = required_failures(found)
    lone = [
        check for check in (*failures, *required_failures(without_root, {rootless.NEEDED_FOR})) if check.name != "root"
    ]
    found = (*found, *(check for check in without_root if check.name != "/dev/net/tun"))
    if output == "json":
        render.as_json([check.line() for check in found])
        return 3 if failures else 0
    render.columns(
        ("check", "ok", "found", "needed for"),
        ((check.name, "yes" if check.ok else "no", check.found, check.needed_for or "every lab") for check in found),
    )
    for check in found:
        if not check.ok:
            render.say(f"{check.name}: want {check.want}: {check.remedy}")
    if not IS_CLONE and (lines := apt_lines(missing_debian_packages(found))):
        print("\nInstall what is missing:", *lines, sep="\n  ")
    if failures and without_root and not lone:
        print("\na lab can run here: sudo testbed up, or without root: testbed up --rootless two_nodes")
        return 0
    print("\na lab can run here" if not failures else "\na lab cannot run here yet")
    return 3 if failures else 0


@verbs.command()
@output_option("json")
def topologies(output: str | None) -> None:
    """List the bundled clusters and the topologies to generate one from. Needs no root."""
    from testbed.cluster.spec import cluster_names, find_cluster
    from testbed.cluster.topology import describe_topologies
    from testbed.exercises.catalogue import EXERCISES
    from testbed.output import tables as render

    rows: list[ClusterLine] = [
        {"name": name, "nodes": len(cluster.nodes), "pods": cluster.pod_count, "topology": cluster.underlay.topology}
        for name in cluster_names()
        for cluster in (find_cluster(name),)
    ]
    if output == "json":
        answer: TopologiesAnswer = {
            "clusters": rows,
            "topologies": [
                {
                    "name": shape.name,
                    "description": shape.description,
                    "parameters": [
                        {"name": one.name, "type": one.type, "default": one.default, "meaning": one.meaning}
                        for one in shape.parameters
                    ],
                }
                for shape in describe_topologies()
            ],
            "exercises": [{"name": one.name, "level": one.level} for one in EXERCISES.values()],
        }
        return render.as_json(answer)
    render.columns(("cluster", "nodes", "pods", "topology"), [tuple(row.values()) for row in rows])
    print()
    render.columns(
        ("topology", "parameters", "what it is"),
        (
            (
                shape.name,
                ",".join(f"{one.name}={one.default}" for one in shape.parameters),
                shape.description,
            )
            for shape in describe_topologies()
        ),
    )
    print()
    levels = sorted({one.level for one in EXERCISES.values()})
    render.columns(
        ("level", "exercises"),
        [(level, ", ".join(one.name for one in EXERCISES.values() if one.level == level)) for level in levels],
    )
    print("\nnext:\n  sudo testbed up two_nodes\n  sudo testbed up --topo tree,depth=2,fanout=3 --pods-per-node 2")
    return None


@verbs.command()
@click.argument("cluster", metavar="FILE|NAME", shell_complete=clusters)
@click.option("--show-defaults", is_flag=True, help="Print the file with every default, as YAML.")
@images_option
@strict_option
@output_option("json")
def validate(cluster: str, show_defaults: bool, images: tuple[str, ...], strict: bool, output: str | None) -> None:
    """Check a cluster file and list all its problems. Needs no root."""
    from testbed.cluster.image_names import read_rules
    from testbed.cluster.images import RECIPES
    from testbed.cluster.problems import SpecError
    from testbed.cluster.spec import find_cluster
    from testbed.output import tables as render

    found = find_cluster(cluster, read_rules(images, RECIPES))
    if strict and found.warnings:
        raise SpecError(found.warnings)
    render.warnings(found.warnings)
    if show_defaults:
        from testbed.cluster.written_out import written_out

        if output is not None:
            raise click.UsageError("--show-defaults prints YAML (got -o json; want one of both)")
        print(written_out(found), end="")
        return None
    summary: ValidateAnswer = {
        "cluster": found.name,
        "nodes": list(found.nodes),
        "pods": [str(one.key) for one in found.pods],
        "deployments": {str(one.key): one.spec.replicas for one in found.deployments},
        "replicaSets": {str(one.key): one.spec.replicas for one in found.replica_sets},
        "daemonSets": [str(one.key) for one in found.daemon_sets],
    }
    if output == "json":
        return render.as_json(summary)
    nodes, pods = len(found.nodes), found.pod_count
    print(f"{cluster} is valid: {nodes} node{'s' * (nodes != 1)}, {pods} pod{'s' * (pods != 1)}")
    return None


@verbs.command()
def init() -> None:
    """Print a cluster file to start from, with comments. Needs no root.

    \b
    testbed init > lab.yaml
    sudo testbed up lab.yaml
    """
    from testbed.cluster.starter import STARTER

    print(STARTER, end="")


@verbs.command()
@lab_option
def cli(lab: str | None) -> int:
    """Open Mininet's own prompt on the running lab; leaving it keeps the lab."""
    from testbed.output import terminal

    return terminal.run(find_lab(lab), CLI, terminal=os.isatty(0))


@verbs.group(cls=Verbs)
def restart() -> None:
    """Restart parts of the lab."""


@restart.command(name="agent")
@click.argument("nodes", nargs=-1, metavar="NODE…", shell_complete=names("nodes"))
@click.option("--all", "everything", is_flag=True, help="The agents of all nodes.")
@lab_option
def restart_agent(nodes: tuple[str, ...], everything: bool, lab: str | None) -> None:
    """Restart agents with their current code, and wait until they are ready."""
    if bool(nodes) == everything:
        raise click.UsageError("want NODE… or --all", click.get_current_context())
    for line in ask(find_lab(lab), RESTART, nodes=[bare_name(node) for node in nodes]):
        print(line)


@restart.command(name="pod")
@click.argument("pods", nargs=-1, required=True, metavar="POD…", shell_complete=names("pods"))
@namespace_option
@lab_option
def restart_pod(pods: tuple[str, ...], namespace: str | None, lab: str | None) -> None:
    """Rebuild pods (namespaces, network, containers), for instance after a change to a CNI plugin, and wait until they
    are ready.
    """
    for line in ask(find_lab(lab), RESTART, pods=[bare_name(pod) for pod in pods], namespace=namespace):
        print(line)


@verbs.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- ARGS…")
@lab_option
def etcdctl(arguments: Sequence[str], lab: str | None) -> int:
    """Run the real etcdctl on the lab's etcd: etcdctl -- get --prefix /coreos.com/network"""
    from testbed.output import terminal

    return terminal.run(find_lab(lab), ETCDCTL, terminal=False, argv=list(arguments))
