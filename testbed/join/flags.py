"""What `join` and `leave` add to the agent's flags, and the machine that they describe. Pure."""

from collections.abc import Mapping, Sequence

from agent.options.command_line import parse_options, read_flags
from agent.options.options import Options

HEALTH_PORT = 8286
"""Where a joined machine reports its health, to itself only."""
DEFAULTS: Mapping[str, str] = {
    "bridge": "docker0",
    "ip-masq": "true",
    "healthz-ip": "127.0.0.1",
    "healthz-port": str(HEALTH_PORT),
}
"""What a lab's nodes have too; each can be set otherwise."""


def health_host(options: Options) -> str:
    """Return where this machine asks its agent: one that listens everywhere, on the loopback."""
    return "127.0.0.1" if options.healthz_ip == "0.0.0.0" else options.healthz_ip


def with_defaults(flags: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the agent's flags, with our defaults for those that neither flags nor variables set."""
    given = read_flags(flags, environ).given
    added = [f"--{name}={text}" for name, text in DEFAULTS.items() if name not in given]
    return [*added, *flags]


def options_of(flags: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Return the same as one checked value. Raises UsageError with a line for each mistake."""
    return parse_options(with_defaults(flags, environ), environ)
