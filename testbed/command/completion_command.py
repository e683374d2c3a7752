"""The verb `completion`: a completion script for verbs, options and names."""

import click
from click.shell_completion import get_completion_class

from testbed.command.command_line import verbs

VARIABLE = "_TESTBED_COMPLETE"


@verbs.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes verbs, options and names in your shell. Needs no root.

    \b
    bash:  testbed completion bash > ~/.local/share/bash-completion/completions/testbed
    zsh:   testbed completion zsh > ~/.zfunc/_testbed      # with fpath+=~/.zfunc before compinit
    fish:  testbed completion fish > ~/.config/fish/completions/testbed.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(verbs, {}, "testbed", VARIABLE).source())
