"""The command line. Heavy modules are imported only in the verb that needs them: `status` and `get` answer at once."""

import os
import sys
from pathlib import Path

from testbed.places import INSTALL, ROOT

VENV = ROOT / ".venv"


def _use_own_interpreter() -> None:
    """Start again in the clone's .venv when another Python runs this, so that `sudo python -m testbed` works."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() != VENV.resolve() and python.exists():
        # -P: a file in the current directory must not stand in for a module; -B: nothing is written into the clone.
        os.execv(python, [str(python), "-P", "-B", "-m", "testbed", *sys.argv[1:]])


if __name__ == "__main__":
    _use_own_interpreter()

try:
    from testbed.command.cli import main
except ModuleNotFoundError as missing:
    print(f"error: testbed: Python package {missing.name} is missing (want: {INSTALL})", file=sys.stderr)
    sys.exit(3)
except KeyboardInterrupt:  # before the verb began
    sys.exit(130)

if __name__ == "__main__":
    main()
