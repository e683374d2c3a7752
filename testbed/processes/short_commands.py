"""Runs programs that end soon, such as ip, tc and nft: whatever goes wrong is an OSError with their own words."""

import subprocess
from collections.abc import Sequence

LIMIT_S = 10.0


def output_of(command: Sequence[str], stdin: str = "", *, called: str = "") -> str:
    """Return the output of a command. Raises OSError if it fails, or does not end within LIMIT_S seconds.

    `called` is its name in the message, by default the whole command.
    """
    called = called or " ".join(command)
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{called}: no end after {LIMIT_S:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise OSError(f"{called}: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout
