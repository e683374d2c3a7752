"""The entry point of `testbed`: runs the verb, prints errors in one line each, and exits with the documented code."""

import re
import sys

import click

from testbed.command import (  # noqa: F401 - importing these is what registers their verbs
    bench_command,
    capture_command,
    change_commands,
    check_command,
    commands_command,
    completion_command,
    fault_command,
    forward_command,
    graph_command,
    kubeconfig_command,
    lab_commands,
    logs_command,
    machine_commands,
    node_commands,
    policy_command,
    soak_command,
    trace_command,
    ui_command,
    workload_commands,
)
from testbed.command.command_line import verbs
from testbed.errors import TestbedError
from testbed.output import standard_streams
from testbed.spelling import printable

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the verb, print one line for each error, and exit with the documented code."""
    try:
        code = verbs.main(prog_name="testbed", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "testbed"
        _complain(f"{where}: {_with_help(' '.join(error.format_message().split()), where)}")
        code = 2
    except TestbedError as error:
        _complain(str(error))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    standard_streams.finish()
    sys.exit(code if isinstance(code, int) else 0)


def _with_help(text: str, where: str) -> str:
    """Return `text` with a pointer to the help, in the same parentheses as the expected value."""
    text, help_ = text.removesuffix("."), f"help: {where} --help"
    return f"{text[:-1]}; {help_})" if re.search(r"\((got|want)[^()]*\)$", text) else f"{text} ({help_})"


def _complain(text: str) -> None:
    """Print a line for each problem; control characters in a name must not affect the terminal."""
    for line in text.splitlines():
        print(printable(line if line.startswith("error: ") else f"error: {line}"), file=sys.stderr)
