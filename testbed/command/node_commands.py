"""Verbs that change the nodes of a running lab: node add, drain, uncordon, delete."""

from typing import TYPE_CHECKING

import click

from testbed.command.command_line import FiniteRange, Verbs, bare_name, lab_option, output_option, verbs
from testbed.command.completion import names
from testbed.control.client import ask, find_lab
from testbed.control.questions import NODE
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.lab import NodeAnswer

limit_option = click.option(
    "--timeout",
    type=FiniteRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long pods may take to be ready elsewhere.",
)


@verbs.group(cls=Verbs)
def node() -> None:
    """Add nodes to a running lab, drain them, remove them."""


def _ask(action: str, name: str, lab: str | None, output: str | None, **arguments: object) -> "NodeAnswer | None":
    """Return the lab's answer; None if it was printed as JSON."""
    record = find_lab(lab)
    answer = ask(record, NODE, (), None, action=action, name=bare_name(name), **arguments)
    if output == "json":
        from testbed.output import tables as render

        render.as_json(answer)
        return None
    return answer


@node.command()
@click.argument("name", metavar="NAME")
@click.option("--ip", metavar="ADDRESS", help="Underlay address; by default the next free one.")
@click.option("--switch", metavar="SWITCH", help="Switch for its cable; by default the first one.")
@lab_option
@output_option("json")
def add(name: str, ip: str | None, switch: str | None, lab: str | None, output: str | None) -> None:
    """Add a machine with an agent, and wait until every node knows its subnet."""
    answer = _ask("add", name, lab, output, ip=ip, switch=switch)
    if answer is not None:
        print(f"node/{answer['name']} added: {answer['address']}, subnet {answer['subnet']}")
        next_commands(find_lab(lab).name, "get nodes")


@node.command()
@click.argument("name", metavar="NAME", shell_complete=names("nodes"))
@limit_option
@lab_option
@output_option("json")
def drain(name: str, timeout: float, lab: str | None, output: str | None) -> None:
    """Accept no new pods, and move those of Deployments and ReplicaSets to other nodes.

    New pods start before old ones end where possible; pods of DaemonSets stay, as in Kubernetes.
    """
    answer = _ask("drain", name, lab, output, limit_s=timeout)
    if answer is not None:
        print(f"node/{answer['name']} drained")
        if answer["stay"]:
            click.echo(f"warning: pods without a controller stay: {', '.join(answer['stay'])}", err=True)
        next_commands(find_lab(lab).name, f"node delete {name}", f"node uncordon {name}")


@node.command()
@click.argument("name", metavar="NAME", shell_complete=names("nodes"))
@lab_option
@output_option("json")
def uncordon(name: str, lab: str | None, output: str | None) -> None:
    """Let a drained node accept new pods again."""
    answer = _ask("uncordon", name, lab, output)
    if answer is not None:
        print(f"node/{answer['name']} accepts pods again")


@node.command()
@click.argument("name", metavar="NAME", shell_complete=names("nodes"))
@limit_option
@lab_option
@output_option("json")
def delete(name: str, timeout: float, lab: str | None, output: str | None) -> None:
    """Drain a node, end its remaining pods, and remove the machine and its lease."""
    answer = _ask("delete", name, lab, output, limit_s=timeout)
    if answer is not None:
        print(f"node/{answer['name']} deleted")
        if answer["lost"]:
            click.echo(
                f"warning: pods without a controller were deleted with it: {', '.join(answer['lost'])}", err=True
            )
        next_commands(find_lab(lab).name, "get nodes")
