"""Sessions of pages, typed into a shell: pipes, loops, files of the page and all.

`testbed` without sudo is an ordinary user's. The shell has a /run/testbed of its own, so that the labs that it sees are
those of the page alone.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.documents import ROOT, Block
from tests.e2e.command import environment_with

LIMIT_S = 280.0
MARK = "@@@ command"
BEGIN = f"""
mount --make-rprivate / && mkdir -p /run/testbed && mount -t tmpfs -o mode=0755 tmpfs /run/testbed || exit 9
as_root() {{ "{sys.executable}" -m testbed "$@"; }}
sudo() {{ if [ "$1" = testbed ]; then shift; as_root "$@"; else "$@"; fi; }}
testbed() {{ setpriv --reuid=65534 --regid=65534 --clear-groups "{sys.executable}" -m testbed "$@"; }}
trap 'as_root down --all' EXIT
"""
PROMPT = "testbed> "
FILE = re.compile(r"^```yaml\n# ([a-z_]+\.yaml)\b.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Typed:
    """One command, what the page shows below it, and what it said."""

    command: str
    shown: tuple[str, ...]
    said: str = ""


def commands_of(block: Block) -> list[Typed]:
    """Return the session of a block; lines behind a prompt of a program are typed to it."""
    found = []
    for part in re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        typed = [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]
        shown = tuple(line for line in lines if not line.startswith(PROMPT))
        if typed:
            command = "\n".join((f"{command} <<'END'", *typed, "END"))
        found.append(Typed(command, shown))
    return found


def files_of(page: str) -> dict[str, str]:
    """Return the YAML files that a page shows with their names."""
    return {name: f"# {name}\n{text}" for name, text in FILE.findall((ROOT / page).read_text(encoding="utf-8"))}


def type_in(commands: Sequence[Typed], directory: Path, cluster: str) -> list[Typed]:
    """Run them in a new shell in `directory`; each comes back with what it said."""
    script = [BEGIN, f"as_root up {cluster} >/dev/null || exit 8" if cluster else ""]
    for typed in commands:
        script += [f"echo; echo '{MARK}'", f"{{ {typed.command}\n}} 2>&1"]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", "\n".join(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment_with({"PYTHONPATH": str(ROOT)}),
        timeout=LIMIT_S,
        check=False,
    )
    _, *said = done.stdout.split(f"{MARK}\n")
    assert len(said) == len(commands), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return [Typed(typed.command, typed.shown, text) for typed, text in zip(commands, said, strict=True)]
