"""What every verb of the command line shares: the group, its options, names of kinds."""

import math
import os
from collections.abc import Callable
from typing import Any

import click

from testbed.cluster.kinds import BY_WORD, NODE, POD, POD_OWNERS
from testbed.command.completion import labs, namespaces
from testbed.command.habits import advice
from testbed.errors import WrongEnvironment
from testbed.spelling import listed, meant

SECTIONS = {
    "A lab": ("up", "down", "status", "restart", "doctor", "topologies", "init", "validate", "cli"),
    "What runs in it": (
        "get",
        "describe",
        "apply",
        "delete",
        "scale",
        "node",
        "exec",
        "shell",
        "logs",
        "events",
        "forward",
        "etcdctl",
    ),
    "Look inside": ("trace", "policy", "capture", "graph", "ui", "commands"),
    "Try it": ("ping", "check", "hint", "iperf", "bench"),
    "Break it": ("fault", "soak"),
    "Real machines": ("join", "leave", "machines"),
    "Your shell": ("completion",),
}
"""Every verb, in the order in which a user needs them."""
FIRST_VERBS = ("up", "status", "get", "exec", "shell", "logs", "trace", "ping", "check", "down")
"""What a message names when a word is like no verb at all."""
LONGEST_SENTENCE = 400


class Verbs(click.Group):
    """A group that knows what was probably meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 - click's own type
        """As click does, with the nearest verb in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"no such verb: {args[0]}{self._instead_of(args[0], ctx)}", ctx) from error

    def _instead_of(self, word: str, ctx: click.Context) -> str:
        """Return what to type instead: what users of other tools mean by the word, else what looks like it."""
        below = ctx.command_path.partition(" ")[2]
        if known := advice(f"{below} {word}".lstrip()):
            return f" (want: {known})"
        if near := meant(word, self.commands):
            return f" - did you mean {' or '.join(near)}?"
        return f" (want one of {listed(sorted(self.commands, key=_by_use))})"

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """As click does; an error of a verb's options that names no verb gets its name."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            verb = ctx.invoked_subcommand or ""
            if error.ctx is None and verb in self.commands:
                error.ctx = click.Context(self.commands[verb], ctx, verb)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first sentence of each."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _first_sentence(command)) for name, command in self.commands.items()])


class AllVerbs(Verbs):
    """The whole program's."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """As click does; what the kernel refuses becomes an error with the limit that it is about."""
        try:
            return super().invoke(ctx)
        except (OSError, MemoryError) as failure:
            from testbed.host.limits import explained

            raise explained(failure) from failure
        except RuntimeError as failure:
            if "can't start new thread" not in str(failure):
                raise
            from testbed.host.limits import explained

            raise explained(failure) from failure

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; an option of the verbs in front of the verb is sent behind it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = error.option_name
            if any(option in parameter.opts for verb in self.commands.values() for parameter in verb.params):
                what = f"{option} goes after the verb (want: testbed VERB … {option})"
                raise click.UsageError(what, ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By what they are for."""
        width = max(len(name) for name in self.commands)
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", _first_sentence(self.commands[name])) for name in names])


def _by_use(verb: str) -> int:
    """Return where a verb stands among those that beginners need first."""
    return FIRST_VERBS.index(verb) if verb in FIRST_VERBS else len(FIRST_VERBS)


class FiniteRange(click.FloatRange):
    """A number between two others; what is not a number is never outside a range, and infinity is no time."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's own types
        """As click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(LONGEST_SENTENCE)


@click.group(cls=AllVerbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="overlay-testbed", message="testbed %(version)s")
def verbs() -> None:
    """A Kubernetes-like pod network on this machine, out of real parts.

    \b
    sudo testbed up          nginx on one node, tomcat on the other, joined by the overlay
    sudo testbed ping        every pod reaches every pod
    sudo testbed down        nothing is left
    """


def lab_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--lab`, as every verb has it."""
    return click.option(
        "--lab", metavar="LAB", shell_complete=labs, help="Which lab, when several run (or TESTBED_LAB)."
    )(function)


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`-n`, as every verb has it that takes names of pods and other objects."""
    return click.option(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        shell_complete=namespaces,
        # As kubectl takes it: -n=shop.
        callback=lambda _context, _parameter, value: value and value.removeprefix("="),
        help="In which namespace; NAMESPACE/NAME names a pod of another.  [default: default]",
    )(function)


all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")


images_option = click.option(
    "--images",
    multiple=True,
    metavar="PATTERN=RECIPE",
    help="What runs for images: '*=echo' has stand-ins for all without a recipe answer on their declared ports.",
)


strict_option = click.option(
    "--strict", is_flag=True, help="Refuse fields that change nothing here, and images that something else runs for."
)


def output_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-o`, with the forms that the verb has besides its columns."""
    return click.option("-o", "--output", type=click.Choice(formats), help="Another form of the answer.")


def needs_root(verb: str) -> None:
    """Raise TestbedError (environment) for a user who is not root."""
    if os.geteuid() != 0:
        raise WrongEnvironment(f"testbed {verb}: needs root (got uid {os.geteuid()}; want: sudo testbed {verb})")


def bare_name(name: str) -> str:
    """`pod/nginx` as kubectl users write it, without the kind; `deploy/web`, any pod of it, keeps a kind."""
    word, slash, rest = name.partition("/")
    kind = BY_WORD.get(word) if slash else None
    if kind in POD_OWNERS:
        return f"{kind.singular}/{rest}"
    return rest if kind in (POD, NODE) else name
