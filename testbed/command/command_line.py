"""The common parts of all verbs: the group, its options, names of kinds."""

import math
import os
from collections.abc import Callable
from typing import Any

import click

from testbed.cluster.kinds import NODE, POD, POD_OWNERS
from testbed.command.completion import labs, namespaces
from testbed.command.habits import advice
from testbed.command.object_words import kind_named
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
    "Look inside": ("trace", "policy", "capture", "graph", "ui", "kubeconfig", "commands"),
    "Try it": ("ping", "check", "hint", "iperf", "bench"),
    "Break it": ("fault", "soak"),
    "Real machines": ("join", "leave", "machines"),
    "Your shell": ("completion",),
}
"""Every verb, in the order of use."""
FIRST_VERBS = ("up", "status", "get", "exec", "shell", "logs", "trace", "ping", "check", "down")
"""Named in a message when a word resembles no verb."""
LONGEST_SENTENCE = 400


class Verbs(click.Group):
    """A group that suggests the intended verb."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 - click's own type
        """Resolve a verb as click does, with the nearest verb in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"no such verb: {args[0]}{self._instead_of(args[0], ctx)}", ctx) from error

    def _instead_of(self, word: str, ctx: click.Context) -> str:
        """Return what to type instead: the equivalent of another tool's word, else a similar word."""
        below = ctx.command_path.partition(" ")[2]
        if known := advice(f"{below} {word}".lstrip()):
            return f" (want: {known})"
        if near := meant(word, self.commands):
            return f" - did you mean {' or '.join(near)}?"
        return f" (want one of {listed(sorted(self.commands, key=_by_use))})"

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """Invoke as click does; an error of a verb's options that names no verb gets its name."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            verb = ctx.invoked_subcommand or ""
            if error.ctx is None and verb in self.commands:
                error.ctx = click.Context(self.commands[verb], ctx, verb)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the first sentence of each."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _first_sentence(command)) for name, command in self.commands.items()])


class AllVerbs(Verbs):
    """The group of the whole program."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own type
        """Invoke as click does; the kernel's refusal becomes an error with the limit that caused it."""
        try:
            return super().invoke(ctx)
        except (OSError, MemoryError, RuntimeError) as failure:
            if isinstance(failure, RuntimeError) and "can't start new thread" not in str(failure):
                raise
            from testbed.host.limits import explained

            raise explained(failure) from failure

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; move verbs' options from before the verb to after it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = error.option_name
            if any(option in parameter.opts for verb in self.commands.values() for parameter in verb.params):
                what = f"{option} goes after the verb (want: testbed VERB … {option})"
                raise click.UsageError(what, ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show verbs by purpose."""
        width = max(len(name) for name in self.commands)
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", _first_sentence(self.commands[name])) for name in names])


def _by_use(verb: str) -> int:
    """Return a verb's rank by order of use."""
    return FIRST_VERBS.index(verb) if verb in FIRST_VERBS else len(FIRST_VERBS)


class FiniteRange(click.FloatRange):
    """A number between two others; rejects NaN, which is never outside a range, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's own types
        """Convert as click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class GoDuration(click.ParamType[float]):
    """A time such as 1h30m, as Kubernetes' and flannel's programs take it, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's own types
        """Convert as Go does."""
        from agent.options.parsers import duration_s

        try:
            return duration_s(value)
        except ValueError as failure:
            self.fail(f"{value}: {failure}.", param, ctx)


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(LONGEST_SENTENCE)


@click.group(cls=AllVerbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="overlay-testbed", message="testbed %(version)s")
def verbs() -> None:
    """A Kubernetes-like pod network on this machine, out of real parts.

    \b
    sudo testbed up          nginx on one node, tomcat on the other, connected by the overlay
    sudo testbed ping        every pod reaches every pod
    sudo testbed down        nothing is left
    """


def lab_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--lab`, as for every verb."""
    return click.option(
        "--lab", metavar="LAB", shell_complete=labs, help="Which lab, when several run (or TESTBED_LAB)."
    )(function)


def one_lab_or_all(lab: str | None, everything: bool) -> None:
    """Raise click.UsageError if a lab is named beside `--all`."""
    if everything and lab:
        raise click.UsageError(
            f"--all means every lab (got --lab {lab} too; want one of them)", click.get_current_context()
        )


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-n`, as for every verb that takes names of objects."""
    return click.option(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        shell_complete=namespaces,
        # As in kubectl: -n=shop.
        callback=lambda _context, _parameter, value: value and value.removeprefix("="),
        help="In which namespace; NAMESPACE/NAME names a pod of another.  [default: default]",
    )(function)


all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")


images_option = click.option(
    "--images",
    multiple=True,
    metavar="PATTERN=RECIPE",
    help="Recipes for images: with '*=echo', stand-ins answer for all images without a recipe on their declared ports.",
)


strict_option = click.option(
    "--strict", is_flag=True, help="Refuse fields without an effect here, and images that another program replaces."
)


def output_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `-o`, with the verb's formats besides columns."""
    return click.option("-o", "--output", type=click.Choice(formats), help="Output format.")


def needs_root(verb: str) -> None:
    """Raise TestbedError (environment) unless the user is root."""
    if os.geteuid() != 0:
        raise WrongEnvironment(f"testbed {verb}: needs root (got uid {os.geteuid()}; want: sudo testbed {verb})")


def bare_name(name: str) -> str:
    """Return `pod/nginx`, as kubectl users write it, without the kind.

    `deploy/web` keeps its kind: it is any of the Deployment's pods.
    """
    word, slash, rest = name.partition("/")
    kind = kind_named(word) if slash else None
    if kind in POD_OWNERS:
        return f"{kind.singular}/{rest}"
    return rest if kind in (POD, NODE) else name
