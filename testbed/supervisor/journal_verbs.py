"""What the lab answers to `testbed commands`."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from agent.kernel import json_lines
from testbed.control.server import Request, Verb
from testbed.errors import TestbedError
from testbed.lab.command_script import Change, as_json, read_changes, script
from testbed.plain_files import read_plain
from testbed.supervisor.lab import Lab

JOURNAL = "journal.jsonl"
JOURNAL_BYTES = 2 * json_lines.PIECE_BYTES


def journal_verbs(lab: Lab) -> Mapping[str, Verb]:
    """The verb, bound to this lab."""
    return {"commands": Verb(lambda request: commands(lab, request), changes=False)}


def commands(lab: Lab, request: Request) -> object:
    """Every kernel change so far, as a script and as data."""
    node = request.argument("node", str)
    changes = changes_of(lab)
    places = list(dict.fromkeys(change.node for change in changes))
    if node is not None and node not in places:
        raise TestbedError(f"no changes on {node} (there are some on: {', '.join(places)})")
    chosen = [change for change in changes if node in (None, change.node)]
    complete = all(json_lines.is_complete(file) for file in _journals(lab))
    return {"script": script(changes, lab.name, node, complete=complete), "changes": as_json(chosen)}


def changes_of(lab: Lab) -> list[Change]:
    """From the lab's own journal and those of the agents."""
    found: list[Change] = []
    for file in [file for journal in _journals(lab) for file in json_lines.pieces(journal)]:
        with contextlib.suppress(FileNotFoundError):
            found += read_changes(read_plain(file, JOURNAL_BYTES).decode(errors="replace"))
    return found


def _journals(lab: Lab) -> list[Path]:
    return [lab.directory / JOURNAL, *(node.run / JOURNAL for node in lab.nodes.values())]
