"""`up` on a running lab: show how the file differs from it, and apply the changes with the verbs that people use."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from testbed.cluster.cluster_document import AgentSpec
from testbed.cluster.difference import Difference, agent_of, difference
from testbed.cluster.image_names import read_rules
from testbed.cluster.images import RECIPES
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.control.client import CLUSTER_FILE, LabRecord, ask, ask_with_contents
from testbed.control.options import LabOptions, read_options
from testbed.control.questions import APPLY, DELETE, NODE, STATUS
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.host.named_programs import unusable_programs
from testbed.output.next_commands import prefix
from testbed.plain_files import MAX_BYTES, read_plain, replace_plain

READY_LIMIT_S = 60.0
AGENT_LIMIT_S = 20.0
DRAIN_LIMIT_S = 60.0


def converge(lab: LabRecord, wanted: Cluster, options: LabOptions) -> None:
    """Bring the lab to `wanted`, read with `options`.

    Raises TestbedError, with nothing changed if the file asks for the impossible.
    """
    file, source, dry_run = lab.rundir / CLUSTER_FILE, options.cluster_file, options.dry_run
    plan = difference(_with_its_agents(lab, _cluster_of(lab, file)), wanted)
    if plan.refused:
        refused = [one.partition(": ") for one in plan.refused]
        lines = [
            f"error: {source}: {path}: cannot change while lab {lab.name} runs ({why})" for path, _, why in refused
        ]
        hint = f"take it down first ({prefix()} down --lab {lab.name}) or start a second lab beside it (up --lab NAME)"
        raise InvalidInput("\n".join([*lines, f"nothing was changed: {hint}"]).removeprefix("error: "))
    lines = list(plan.lines())
    what = f"{len(lines)} change{'s' if len(lines) != 1 else ''}" if lines else "nothing to change"
    print(f"lab {lab.name}: {what}{' (dry run)' if dry_run else ''}")
    print("".join(f"  {line}\n" for line in lines))
    if unusable := unusable_programs(wanted):
        raise WrongEnvironment("\n".join(unusable))
    if dry_run:
        return
    _change_agents(lab, plan, wanted)
    _add_nodes(lab, plan)
    for kind, name in plan.gone_objects:
        # Objects removed by hand meanwhile are also gone.
        ask(lab, DELETE, (), None, kind=kind, names=[name], grace_s=None)
    images = [f"{rule.pattern}={rule.recipe}" for rule in wanted.images]
    _apply(lab, wanted, source, images)
    for name in _there(lab, plan.gone_nodes):
        ask(lab, NODE, (), None, action="delete", name=name, limit_s=DRAIN_LIMIT_S)
    if plan.gone_nodes:
        # Pods from a removed node, which may be anywhere.
        _apply(lab, wanted, source, images)
    try:
        replace_plain(file, wanted.text.encode())
        replace(read_options(lab.rundir), images=options.images).write(lab.rundir)
    except OSError as failure:
        raise TestbedError(f"lab {lab.name}: {file}: cannot be written ({failure})") from failure


def _cluster_of(lab: LabRecord, file: Path) -> Cluster:
    """Return the cluster that the lab was made from."""
    try:
        rules = read_rules(read_options(lab.rundir).images, RECIPES)
        return read_cluster(read_plain(file, MAX_BYTES), str(file), rules)
    except (OSError, SpecError) as failure:
        raise TestbedError(f"lab {lab.name}: the file that it was made from cannot be read: {failure}") from failure


def _with_its_agents(lab: LabRecord, cluster: Cluster) -> Cluster:
    """Return the cluster with the agents that run: an `up` that failed may have changed some of them."""
    there = _there(lab, list(cluster.nodes))
    if not there:
        return cluster
    found = ask(lab, NODE, action="agent", name=there[0]).get("agents", {})
    agents = {name: AgentSpec.model_validate_json(text) for name, text in found.items() if name in cluster.nodes}
    nodes = {name: cluster.nodes[name].model_copy(update={"agent": agent}) for name, agent in agents.items()}
    return replace(cluster, nodes={**cluster.nodes, **nodes})


def _add_nodes(lab: LabRecord, plan: Difference) -> None:
    """Add nodes; those that an interrupted run added exist already."""
    there = _there(lab, [node.name for node in plan.new_nodes])
    for node in plan.new_nodes:
        if node.name not in there:
            ask(
                lab,
                NODE,
                (),
                None,
                action="add",
                name=node.name,
                ip=node.ip,
                switch=node.switch,
                subnet=node.subnet,
                labels=dict(node.labels),
            )


def _change_agents(lab: LabRecord, plan: Difference, wanted: Cluster) -> None:
    """Replace one agent after the other; each is ready, and every node forwards to it, before the next."""
    for name in _there(lab, plan.agents):
        agent = agent_of(wanted, name).model_dump_json()
        ask(lab, NODE, (), None, action="agent", name=name, agent=agent, limit_s=AGENT_LIMIT_S)


def _there(lab: LabRecord, names: Sequence[str]) -> list[str]:
    running = {node["name"] for node in ask(lab, STATUS)["nodes"]}
    return [name for name in names if name in running]


def _apply(lab: LabRecord, wanted: Cluster, source: str, images: Sequence[str]) -> None:
    contents = {source: wanted.text.encode()}
    # Without objects too: later manifests follow these rules of images.
    ask_with_contents(lab, APPLY, contents, cluster_files=True, wait_s=READY_LIMIT_S, images=images, keep_images=True)
