"""Breaks one thing in our agent and then runs it: `run_agent.py MUTANT [flags of the agent …]`.

MUTANT is a name, or a file with one: who starts the agent again may then choose another. In a cluster file:
`agent: {command: [PYTHON, …/run_agent.py, /var/tmp/mutant, …]}`. The product has no flag for this.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Break it and run it."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    chosen = sys.argv[1]
    if chosen.startswith("/"):
        file = Path(chosen)
        chosen = file.read_text().strip() if file.exists() else "none"
    from tests.mutants.mutants import MUTANTS

    MUTANTS[chosen]()
    from agent.__main__ import run

    sys.exit(run(sys.argv[2:], os.environ))


if __name__ == "__main__":
    main()
