"""The command line. Heavy modules are imported only in the verb that needs them: `status` and `get` answer at once."""

import os
import sys
from pathlib import Path

from testbed.places import INSTALL, ROOT

VENV = ROOT / ".venv"


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 where the caller closed them, before anything is opened that would get their numbers.

    Standard input is then empty; writes to the others fail, as on a full disk.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is what this gets.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def _use_own_interpreter() -> None:
    """Start again in the clone's .venv when another Python runs this, so that `sudo python -m testbed` works."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() != VENV.resolve() and python.exists():
        # -P: a file in the current directory must not stand in for a module; -B: nothing is written into the clone.
        os.execv(python, [str(python), "-P", "-B", "-m", "testbed", *sys.argv[1:]])


_open_standard_streams()
if __name__ == "__main__":
    _use_own_interpreter()

try:
    from testbed.command import cli
    from testbed.output import standard_streams
except ModuleNotFoundError as missing:
    print(f"error: testbed: Python package {missing.name} is missing (want: {INSTALL})", file=sys.stderr)
    sys.exit(3)
except KeyboardInterrupt:  # before the verb began
    sys.exit(130)


def main() -> None:
    """Run the command."""
    try:
        standard_streams.take()
        cli.main()
    except KeyboardInterrupt:  # also while an error is being printed
        sys.exit(cli.EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
