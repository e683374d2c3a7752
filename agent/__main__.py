"""The overlay agent's command line: `python -m agent [cleanup | bridge] [flags]`.

Imports only what `--help` and a mistyped flag need; etcd3, grpc and pyroute2 take a third of a second to load.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

from agent.errors import AgentError, EnvironmentMissing, InvalidConfig, RegistryError, UsageError
from agent.options.command_line import help_text, parse_options, without_effect
from agent.options.options import Options

EXIT_CODES: tuple[tuple[type[AgentError], int], ...] = (
    (UsageError, 2),
    (InvalidConfig, 2),
    (EnvironmentMissing, 3),
    (RegistryError, 4),
)
FAILED = 1


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    sys.exit(run(sys.argv[1:], os.environ))


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what `argv` asks and return the exit code; print each known error as one line `error: …` on standard error."""
    try:
        options = parse_options(argv, environ)
        if options.help:
            print(help_text())
            return 0
        if options.version:
            print(_version())
            return 0
        return _command(options, without_effect(argv, environ))
    except AgentError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has closed it; keep the interpreter from complaining about that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _command(options: Options, notes: Sequence[str]) -> int:
    import logging

    from agent.daemon.log import start_logging
    from agent.options.preconditions import check_machine, check_rights

    start_logging(options.verbosity)
    for note in notes:
        logging.getLogger("agent").info("%s", note)
    if options.command == "cleanup":
        check_rights()
        from agent.commands import clean_up

        clean_up(options)
        return 0
    if options.command == "bridge":
        check_rights()
        from agent.commands import make_bridge

        make_bridge(options)
        return 0
    check_machine(options)
    from agent.daemon.memory import limit_malloc_arenas
    from agent.daemon.service_manager import Shutdown

    limit_malloc_arenas()
    # Before the imports below: grpc may start threads, which must inherit the blocked signals.
    shutdown = Shutdown()
    from agent.agent import Agent

    return Agent(options, shutdown).run()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"overlay-agent {version('overlay-testbed')}"
    except PackageNotFoundError:
        return "overlay-agent, not installed as a package"


if __name__ == "__main__":
    main()
