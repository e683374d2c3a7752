"""What `join` and `leave` add to the agent's own flags, and which machine that describes. Pure."""

from collections.abc import Mapping, Sequence

from agent.options.command_line import parse_options, read_flags
from agent.options.options import Options

HEALTH_PORT = 8286
"""Where a joined machine says how it is, to itself alone."""
DEFAULTS: Mapping[str, str] = {
    "bridge": "docker0",
    "ip-masq": "true",
    "healthz-ip": "127.0.0.1",
    "healthz-port": str(HEALTH_PORT),
}
"""What a node of a lab has too; each can be given otherwise."""


def with_defaults(flags: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The agent's flags, with our defaults for those that neither they nor a variable say."""
    given = read_flags(flags, environ).given
    added = [f"--{name}={text}" for name, text in DEFAULTS.items() if name not in given]
    return [*added, *flags]


def options_of(flags: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The same as one checked value. Raises UsageError with a line for each mistake."""
    return parse_options(with_defaults(flags, environ), environ)
