"""`testbed commands [NODE]`: every kernel change as its equivalent command."""

import click

from testbed.command.command_line import bare_name, lab_option, output_option, verbs
from testbed.command.completion import names
from testbed.control.client import ask, find_lab
from testbed.control.questions import COMMANDS


@verbs.command()
@click.argument("node", required=False, shell_complete=names("pods", "nodes"))
@lab_option
@output_option("json")
def commands(node: str | None, lab: str | None, output: str | None) -> None:
    """Show every change made to the kernel as a script of ip, bridge, nft and sysctl commands, with reasons.

    \b
    commands               the whole lab; runs in an empty namespace and builds the same network
    commands node1         the changes there, as typed there
    commands > lab.sh      to read, to keep, to type live
    """
    answer = ask(find_lab(lab), COMMANDS, node=None if node is None else bare_name(node))
    if output == "json":
        from testbed.output import tables as render

        return render.as_json(answer["changes"])
    return print(answer["script"], end="")
