"""The host side of `up`: read the cluster, check the machine, start the lab, show how it comes up."""

import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from testbed import doctor, render
from testbed.client import CLUSTER_FILE, LabRecord, TestbedError, ask, running_labs
from testbed.clock import now
from testbed.launch import Launched, launch, prepare, remove_leftovers, starting
from testbed.problems import SpecError
from testbed.spec import DEFAULT_CLUSTER, Cluster, find_cluster, find_cluster_file, generate

EXIT_INTERRUPTED = 130


@dataclass(slots=True)
class UpOptions:
    """What the user asked for."""

    cluster: str | None
    lab: str | None
    nodes: int | None
    pods_per_node: int
    without_agent: tuple[str, ...]
    cleanup_on_failure: bool
    timeout_s: float | None
    """For each phase of the start; None: each phase's own."""
    resolved_name: str | None = None
    """The lab's name, once it is known."""


def bring_up(options: UpOptions) -> int:
    """Bring the lab up and return the exit code. Raises TestbedError."""
    cluster, source = _read(options)
    name = options.lab or cluster.name
    options.resolved_name = name
    _check_name(name)
    unknown = [node for node in options.without_agent if node not in cluster.nodes]
    if unknown:
        raise TestbedError(f"--no-agent: no such node (got {unknown[0]}; want one of {', '.join(cluster.nodes)})", 2)
    with starting(name):
        running = [lab for lab in running_labs() if lab.name == name]
        if running:
            return _already_up(running[0], cluster)
        _check_environment(cluster)
        remove_leftovers()
        lab_options: dict[str, object] = {
            "cluster_file": source,
            "without_agent": list(options.without_agent),
            "timeout_s": options.timeout_s,
        }
        rundir = prepare(name, cluster.text, _hosts(cluster), lab_options)
        signal.signal(signal.SIGTERM, _as_interrupt)
        return _start(launch(name, rundir, source, now()), cluster, options)


def _start(launched: Launched, cluster: Cluster, options: UpOptions) -> int:
    """See the lab through its start; whatever ends this before the lab is kept ends the lab."""
    try:
        return _follow(launched, cluster, options)
    except KeyboardInterrupt:
        if launched.kept:
            raise
        launched.abandon()
        print("\ninterrupted: everything is removed")
        return EXIT_INTERRUPTED
    except BaseException:
        if not launched.kept:
            launched.abandon()
        raise


def _as_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _read(options: UpOptions) -> tuple[Cluster, str]:
    try:
        if options.nodes is not None:
            return generate(options.nodes, options.pods_per_node), f"--nodes {options.nodes}"
        source = find_cluster_file(options.cluster or DEFAULT_CLUSTER)
        return find_cluster(options.cluster or DEFAULT_CLUSTER), str(source)
    except SpecError as error:
        raise TestbedError(str(error), 2) from error


def _check_name(name: str) -> None:
    from testbed.name_rules import check_label_name

    try:
        check_label_name(name)
    except ValueError as error:
        raise TestbedError(f"--lab: {error}", 2) from error


def _already_up(lab: LabRecord, cluster: Cluster) -> int:
    if (lab.rundir / CLUSTER_FILE).read_text() != cluster.text:
        raise TestbedError(
            f"lab {lab.name} is running another cluster file ({lab.cluster_file}): "
            f"take it down first (sudo testbed down --lab {lab.name}) or give this one a name (up --lab NAME)"
        )
    render.status({**ask(lab, "status"), "pid": lab.pid})
    _next(lab.name, cluster)
    return 0


def _check_environment(cluster: Cluster) -> None:
    images = {f"image {container.image}" for pod in cluster.pods for container in pod.spec.containers}
    failures = doctor.required_failures(doctor.checks(optional=False), images)
    if failures:
        raise TestbedError("\n".join(doctor.error_line(check) for check in failures), 3)


def _hosts(cluster: Cluster) -> str:
    machines = {"gw": cluster.addresses.gateway, **cluster.addresses.etcd, **cluster.addresses.nodes}
    return "127.0.0.1\tlocalhost\n" + "".join(f"{address}\t{name}\n" for name, address in machines.items())


def _follow(launched: Launched, cluster: Cluster, options: UpOptions) -> int:
    """Show the phases as they come; decide what becomes of a lab that does not get ready."""
    with render.Phases() as phases:
        message: dict[str, Any] = {}
        for message in launched.messages():
            if "phase" in message:
                phases.show(message["phase"], message["state"], message["detail"], message["seconds"])
    lab = launched.record
    if "ready" in message:
        launched.keep()
        print(f"lab {lab.name} is ready after {message['ready']:.1f} s\n")
        render.status({**ask(lab, "status"), "pid": lab.pid})
        _agents_by_hand(lab, options.without_agent)
        _next(lab.name, cluster)
        return 0
    why = message.get("failed") or f"the lab ended while it started (its log was: {_log_tail(lab.rundir)})"
    if options.cleanup_on_failure or not lab.alive:
        # Removed by whoever catches this, as after any other failure before `keep`.
        raise TestbedError(f"up: {why}; the lab is removed")
    launched.keep()
    raise TestbedError(
        f"up: {why}\nup: the lab is kept for a look: sudo testbed status --lab {lab.name}; "
        f"sudo testbed logs lab --lab {lab.name}; then sudo testbed down --lab {lab.name}"
    )


def _agents_by_hand(lab: LabRecord, nodes: tuple[str, ...]) -> None:
    for node in nodes:
        command = ask(lab, "describe", kind="nodes", name=node)["Agent"]["command"]
        print(f"\nrun {node}'s agent yourself:\n  sudo testbed exec --lab {lab.name} {node} -- {command}")


def _log_tail(rundir: Path) -> str:
    try:
        return (rundir / "lab.log").read_text(errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return "empty"


def _next(lab_name: str, cluster: Cluster) -> None:
    from testbed.command_line import next_commands

    commands = ["ping", "get pods -o wide"]
    shells = [pod.name for pod in cluster.pods if pod.spec.containers[0].image == "shell"]
    tomcat = [pod for pod in cluster.pods if pod.spec.containers[0].image == "tomcat"]
    if shells and tomcat:
        commands = [f"exec {shells[0]} -- curl -s http://10.0.90.2:8080/", *commands[:1]]
    next_commands(lab_name, *commands)
