"""The host side of `up`: read the cluster, check the machine, launch the lab, follow its start."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InvalidConfig
from testbed.cluster import capacity
from testbed.cluster.generated import choose, generate
from testbed.cluster.image_names import read_rules
from testbed.cluster.images import RECIPES, program_of
from testbed.cluster.overlay import KERNEL_DATAPATH, overlay_of, with_backend
from testbed.cluster.problems import SpecError, shorten
from testbed.cluster.shaping import missing_features
from testbed.cluster.spec import Cluster, find_cluster_file, load_cluster
from testbed.cluster.topology import TooManyParts
from testbed.cluster.wiring import Wiring
from testbed.control.answers.lab import StatusAnswer
from testbed.control.client import RUN_ROOT, LabRecord, ask, own_root, running_labs, runtime_directory
from testbed.control.existing_etcd import ExistingEtcd
from testbed.control.options import LabOptions
from testbed.control.questions import DESCRIBE, STATUS
from testbed.control.wire import CONTROL_SOCKET
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.host import bridge_netfilter, doctor, limits, rootless
from testbed.host.converge import converge
from testbed.host.existing_etcd import open_existing
from testbed.host.interruption import Interruption
from testbed.host.lab_directories import prepare, starting
from testbed.host.launch import LabEnded, Launched, launch
from testbed.host.named_programs import unusable_programs
from testbed.host.removal import remove_leftovers
from testbed.output import progress
from testbed.output import tables as render
from testbed.output.next_commands import prefix
from testbed.output.standard_streams import OutputFailed
from testbed.places import DEFAULT_CLUSTER
from testbed.spelling import listed

FOR_KUBECTL = "export KUBECONFIG=$(kubeconfig)"
PODS_PER_NODE = 2
"""The default of a generated cluster."""


def bring_up(options: LabOptions) -> LabRecord | None:
    """Read, check, launch, follow; return the ready lab, or None after a dry run.

    Raises TestbedError, with nothing left unless it says so.
    """
    interruption = Interruption()
    written, options = _read(options)
    cluster = _with_backend(written, options.backend)
    root = _root_of_labs(options)
    with starting(root, options.name):
        running = [lab for lab in running_labs() if (lab.name, lab.rootless) == (options.name, options.rootless)]
        if running:
            _already_up(running[0], written, options)
            return None if options.dry_run else running[0]
        if options.dry_run:
            print(f"lab {options.name} would be created: {len(cluster.nodes)} nodes, {cluster.pod_count} pods")
            return None
        # First, since this also undoes their changes to the host.
        render.warnings(f"warning: {why}" for why in remove_leftovers().values() if why)
        check_environment(cluster, root, without_root=options.rootless, datapath=options.datapath)
        existing, unanswered = open_existing(cluster, options.name, root / options.name)
        render.warnings([*cluster.warnings, *unanswered])
        launched = launch_cluster(root, cluster, options, interruption, existing)
        return _follow(launched, cluster, options, interruption)


def _read(options: LabOptions) -> tuple[Cluster, LabOptions]:
    """Return the cluster, and the options completed from it: its source and the lab's name."""
    if options.nodes is not None or options.topo is not None:
        cluster, source = _generate(options)
    else:
        source = str(find_cluster_file(options.cluster_file or DEFAULT_CLUSTER))
        cluster = load_cluster(source, read_rules(options.images, RECIPES))
        if options.strict and cluster.warnings:
            raise SpecError(cluster.warnings)
        check_capacity(len(cluster.nodes), cluster.pod_count, len(cluster.addresses.etcd))
    name = options.name or os.environ.get("TESTBED_LAB") or cluster.name
    _check_name(name)
    unknown = [node for node in options.without_agent if node not in cluster.nodes]
    if unknown:
        raise InvalidInput(
            f"--no-agent: no such node (got {unknown[0]}; want one of {listed(cluster.nodes, unknown[0])})"
        )
    return cluster, replace(options, name=name, cluster_file=source)


def _generate(options: LabOptions) -> tuple[Cluster, str]:
    """Generate a cluster. Raises SpecError, and TestbedError (environment) before computing one that is too large."""
    pods_per_node = PODS_PER_NODE if options.pods_per_node is None else options.pods_per_node
    try:
        choice = choose(options.topo, options.nodes)
    except TooManyParts as error:
        limit = capacity.most_nodes(capacity.available_mib(), pods_per_node)
        what = f"more nodes than this machine holds (got {error} nodes and switches; want at most {limit} nodes)"
        raise WrongEnvironment(f"environment: --topo {options.topo}: {what}") from error
    check_capacity(len(choice.wiring.nodes), len(choice.wiring.nodes) * pods_per_node)
    return generate(choice, pods_per_node), choice.said


def _with_backend(cluster: Cluster, backend: str | None) -> Cluster:
    try:
        return cluster if backend is None else with_backend(cluster, backend)
    except InvalidConfig as error:
        raise InvalidInput(f"--backend {backend}: {str(error).removeprefix('network config: ')}") from error


def check_capacity(nodes: int, pods: int, members: int = 1) -> None:
    """Raise TestbedError (environment) with an estimate and the limit if the machine cannot hold so many."""
    complaint = capacity.too_big(nodes, pods, capacity.available_mib(), members)
    if complaint:
        raise WrongEnvironment(complaint)


def _check_name(name: str) -> None:
    from testbed.cluster.name_rules import check_label_name

    try:
        check_label_name(name)
    except ValueError as error:
        raise InvalidInput(f"--lab: {str(error).replace(name, shorten(name))}") from error


def _root_of_labs(options: LabOptions) -> Path:
    """Return the directory in which the lab's own is created. Raises TestbedError (environment)."""
    if not options.rootless:
        return RUN_ROOT
    failures = doctor.required_failures(rootless.checks(runtime_directory()), {rootless.NEEDED_FOR})
    root = own_root()
    if failures or root is None:
        raise WrongEnvironment("\n".join(doctor.error_line(check) for check in failures))
    return root


def _already_up(lab: LabRecord, cluster: Cluster, options: LabOptions) -> None:
    """Bring a running lab to the current contents of its file."""
    backend = options.backend
    answer = ask(lab, STATUS)
    if not answer["nodes"]:
        # The last node cannot be deleted.
        down = f"{prefix()} down --lab {lab.name}"
        raise TestbedError(f"lab {lab.name}: its start failed before it had nodes: take it down first ({down})")
    running = answer["nodes"][0]["backend"]
    if backend not in (None, running):
        raise TestbedError(
            f"lab {lab.name} is running with the {running} backend, and agents keep theirs while they run "
            f"(got --backend {backend}; want {running}): take it down first ({prefix()} down --lab {lab.name}) or"
            f" start another lab beside it (up --backend {backend} --lab NAME)"
        )
    render.warnings(cluster.warnings)
    converge(lab, cluster, options)
    if not options.dry_run:
        _show(lab, cluster)


def check_environment(cluster: Cluster, root: Path, *, without_root: bool = False, datapath: str = "auto") -> None:
    """Raise TestbedError (environment) naming everything that is missing for the cluster.

    The lab's directory will be created in `root`.
    """
    too_much = rootless.refusals(cluster) if without_root else []
    needed = limits.needed(len(cluster.nodes), cluster.pod_count, root=not without_root)
    # Alone: without descriptors, every further check fails too.
    if wrong := too_much or limits.too_tight(limits.hard_limits(), needed):
        raise WrongEnvironment("\n".join(wrong))
    purposes = {
        f"image {program_of(container.recipe)}" for spec in cluster.pod_specs for container in spec.all_containers
    }
    overlay = overlay_of(cluster.config)
    if overlay.needs is not None and cluster.agent.command is None:
        purposes.add(overlay.needs)
    if overlay.backend == "udp" and datapath == "kernel":
        purposes |= {*KERNEL_DATAPATH}
    if cluster.underlay.switch == "ovs":
        purposes.add("underlay.switch: ovs")
    if cluster.dns:
        purposes.add("names")
    failures = doctor.required_failures(doctor.checks(optional=False, also=purposes, rootless=without_root), purposes)
    if failures:
        raise WrongEnvironment("\n".join(doctor.error_line(check) for check in failures))
    missing = [*unusable_programs(cluster), *_missing_shaping(cluster.wiring)]
    room = capacity.needed_room_mib(len(cluster.nodes), cluster.pod_count, len(cluster.addresses.etcd))
    if little := capacity.too_little_room(root, room):
        missing.append(little)
    if (cluster.services or cluster.network_policies) and (why := bridge_netfilter.provide()):
        missing.append(why)
    if missing:
        raise WrongEnvironment("\n".join(missing))


def _missing_shaping(wiring: Wiring) -> list[str]:
    """Try bandwidth, delay and loss of the links in temporary namespaces; return what the kernel does not support."""
    if not any(wiring.shaped()):
        return []
    with doctor.ScratchNamespaces() as scratch:
        return missing_features(wiring, lambda command: scratch.attempt(command, ""))


def launch_cluster(
    root: Path, cluster: Cluster, options: LabOptions, interruption: Interruption, existing: ExistingEtcd | None = None
) -> Launched:
    """Start the lab, which ends with this process until it is kept.

    Signals are held from here on; the caller releases them where it would remove the lab.
    """
    interruption.hold()
    try:
        rundir = prepare(root, options, cluster.text, hosts_of(cluster))
        # `apply` may bring its first Service later, and from inside the lab no module can be loaded.
        bridge_netfilter.provide()
        return launch(options.name, rundir, existing)
    except BaseException:
        interruption.release()
        raise


def _follow(launched: Launched, cluster: Cluster, options: LabOptions, interruption: Interruption) -> LabRecord:
    """Follow the lab's start; whatever ends this before the lab is kept ends the lab."""
    kills = out_of_memory_kills()
    try:
        interruption.release()
        _await_ready(launched, cluster, options)
    except BaseException as error:
        if not launched.kept:
            log = _log_tail(launched.record.rundir)
            launched.abandon()
            if isinstance(error, KeyboardInterrupt):
                with contextlib.suppress(OutputFailed):
                    print("\ninterrupted: everything is removed")
            if isinstance(error, LabEnded):
                why = (
                    "out of memory: the kernel killed a process" if out_of_memory_kills() > kills else f"its log: {log}"
                )
                raise TestbedError(f"up: {error} ({why}); nothing of it is left") from error
        raise
    return launched.record


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, in any control group."""
    with open("/proc/vmstat", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)


def _await_ready(launched: Launched, cluster: Cluster, options: LabOptions) -> None:
    """Show the phases; keep or remove a lab that does not become ready.

    Raises OutputFailed at the very end: a lab does not depend on its output.
    """
    failed: OutputFailed | None = None
    warnings: list[str] = []
    with progress.Phases() as phases:
        message: dict[str, Any] = {}
        for message in launched.messages():
            warnings += [message["warning"]] if "warning" in message else []
            if "phase" in message and failed is None:
                try:
                    phases.show(message["phase"], message["state"], message["detail"], message["seconds"])
                except OutputFailed as failure:
                    failed = failure
    lab = launched.record
    render.warnings(warnings)
    if "ready" in message:
        launched.keep()
        if failed is not None:
            raise failed
        print(f"lab {lab.name} is ready after {message['ready']:.1f} s\n")
        _show(lab, cluster, without_agent=options.without_agent)
        return
    if "failed" not in message or not lab.alive:
        raise LabEnded("the lab ended while it started")
    why = message["failed"]
    # A lab that does not answer is useless.
    if options.cleanup_on_failure or not (lab.rundir / CONTROL_SOCKET).exists():
        # The caller removes it when it catches this, as after any other failure before `keep`.
        raise TestbedError(f"up: {why}; the lab is removed")
    launched.keep()
    raise TestbedError(
        f"up: {why}\nup: the lab is kept for a look: {prefix()} status --lab {lab.name}; "
        f"{prefix()} logs lab --lab {lab.name}; then {prefix()} down --lab {lab.name}"
    )


def hosts_of(cluster: Cluster) -> str:
    """Return /etc/hosts of the lab."""
    plan = cluster.addresses
    routers = {name: addresses[0] for name, addresses in plan.routers.items()}
    machines = {"gw": plan.gateway, **plan.etcd, **routers, **plan.nodes}
    return "127.0.0.1\tlocalhost\n" + "".join(f"{address}\t{name}\n" for name, address in machines.items())


def _show(lab: LabRecord, cluster: Cluster, *, without_agent: tuple[str, ...] = ()) -> None:
    """Print the lab's contents, and what to do next."""
    answer = ask(lab, STATUS)
    render.status(answer)
    _agents_by_hand(lab, without_agent)
    _next(answer, cluster)


def _agents_by_hand(lab: LabRecord, nodes: tuple[str, ...]) -> None:
    for node in nodes:
        command = ask(lab, DESCRIBE, kind="nodes", name=node)["Agent"]["command"]
        print(f"\nrun {node}'s agent yourself:\n  {prefix()} exec --lab {lab.name} {node} -- {command}")


def _log_tail(rundir: Path) -> str:
    from testbed.processes.supervise import last_line

    return last_line(rundir / "lab.log") or "empty"


def _next(answer: StatusAnswer, cluster: Cluster) -> None:
    from testbed.output.next_commands import next_commands

    image = {str(pod.key): pod.spec.containers[0].recipe for pod in cluster.pods}
    node = {pod["name"]: pod["node"] for pod in answer["pods"]}
    clients = [pod["name"] for pod in answer["pods"] if image.get(pod["name"]) == "shell" and pod["ready"]]
    servers = [pod for pod in answer["pods"] if image.get(pod["name"]) in ("tomcat", "echo") and pod["ready"]]
    # The pair whose packets cross between nodes, if there is one.
    connected = answer["nodes"][0]["peers"]["expected"] > 0
    pairs = [(client, pod) for client in clients for pod in servers if connected and node[client] != pod["node"]]
    calls = [f"exec {client} -- curl -s http://{pod['address']}:8080/" for client, pod in pairs[:1]]
    open_ports = [
        f"forward svc/{service['name']} {8000 + port['port']}:{port['port']}"
        for service in answer["services"]
        for port in service["ports"]
        if port["node_port"] and port["protocol"] == "TCP" and service["endpoints"]
    ]
    look = "ping" if answer["pods"] and connected else "get routes"
    next_commands(answer["lab"], *calls, *open_ports[:1], FOR_KUBECTL, look)
