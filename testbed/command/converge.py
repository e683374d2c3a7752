"""`up` on a lab that runs: show what is different in the file by now, and do it, with the verbs that people use."""

import os
from collections.abc import Sequence

from testbed.cluster.difference import Difference, difference
from testbed.cluster.spec import Cluster, read_cluster
from testbed.command.change_commands import ask_with_contents
from testbed.command.client import CLUSTER_FILE, LabRecord, TestbedError, ask
from testbed.command.command_line import prefix

READY_LIMIT_S = 60.0
DRAIN_LIMIT_S = 60.0


def converge(lab: LabRecord, wanted: Cluster, source: str, *, dry_run: bool) -> None:
    """Bring the lab to `wanted`. Raises TestbedError, with nothing changed when the file asks for the impossible."""
    file = lab.rundir / CLUSTER_FILE
    plan = difference(read_cluster(file.read_bytes(), str(file)), wanted)
    if plan.refused:
        lines = [f"error: {source}: {refused}: cannot change while lab {lab.name} runs" for refused in plan.refused]
        hint = f"take it down first ({prefix()} down --lab {lab.name}) or give this one a name (up --lab NAME)"
        raise TestbedError("\n".join([*lines, f"nothing is changed: {hint}"]).removeprefix("error: "), 2)
    lines = list(plan.lines())
    what = f"{len(lines)} change{'s' if len(lines) != 1 else ''}" if lines else "nothing to change"
    print(f"lab {lab.name}: {what}{' (dry run)' if dry_run else ''}")
    print("".join(f"  {line}\n" for line in lines))
    if dry_run:
        return
    _add_nodes(lab, plan)
    for kind, name in plan.gone_objects:
        # What somebody has removed by hand meanwhile is gone as well.
        ask(lab, "delete", (), None, kind=kind, names=[name], grace_s=None)
    _apply(lab, wanted, source)
    for name in _there(lab, plan.gone_nodes):
        ask(lab, "node", (), None, action="delete", name=name, limit_s=DRAIN_LIMIT_S)
    if plan.gone_nodes:
        # Pods that were on a node that is gone, and may be anywhere.
        _apply(lab, wanted, source)
    fresh = file.with_suffix(".new")
    fresh.write_text(wanted.text)
    os.replace(fresh, file)


def _add_nodes(lab: LabRecord, plan: Difference) -> None:
    """Those that an interrupted run has added are there already."""
    there = _there(lab, [node.name for node in plan.new_nodes])
    for node in plan.new_nodes:
        if node.name not in there:
            ask(lab, "node", (), None, action="add", name=node.name, ip=node.ip, switch=node.switch, subnet=node.subnet)


def _there(lab: LabRecord, names: Sequence[str]) -> list[str]:
    running = {node["name"] for node in ask(lab, "status")["nodes"]}
    return [name for name in names if name in running]


def _apply(lab: LabRecord, wanted: Cluster, source: str) -> None:
    if wanted.written_pods or wanted.deployments or wanted.services:
        contents = {source: wanted.text.encode()}
        ask_with_contents(lab, "apply", contents, cluster_files=True, wait_s=READY_LIMIT_S)
