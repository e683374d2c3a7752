"""The lab's side of `testbed commands`."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from agent.kernel import json_lines
from testbed.control.answers.lab import CommandsAnswer
from testbed.control.questions import COMMANDS
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import TestbedError
from testbed.lab.command_script import JournalLine, as_json, read_changes, script
from testbed.lab.nodes import Nodes
from testbed.plain_files import read_plain
from testbed.spelling import listed

JOURNAL = "journal.jsonl"
JOURNAL_BYTES = 2 * json_lines.PIECE_BYTES


class JournalVerbs:
    """Reads the journals of the lab and of its agents."""

    def __init__(self, lab: str, directory: Path, nodes: Nodes) -> None:
        """Take the lab's name and directory."""
        self._lab = lab
        self._directory = directory
        self._nodes = nodes

    def verbs(self) -> Sequence[AnyVerb]:
        """Return the verb."""
        return (Verb(COMMANDS, self.commands, changes=False),)

    def commands(self, request: Request) -> CommandsAnswer:
        """Return every kernel change so far, as a script and as data."""
        node = request.argument("node", str)
        changes = self._changes()
        places = list(dict.fromkeys(change.node for change in changes))
        if node is not None and node not in places:
            raise TestbedError(f"no changes on {node} (there are changes on: {listed(places, str(node))})")
        chosen = [change for change in changes if node in (None, change.node)]
        complete = all(json_lines.is_complete(file) for file in self._journals())
        return {"script": script(changes, self._lab, node, complete=complete), "changes": as_json(chosen)}

    def _changes(self) -> list[JournalLine]:
        found: list[JournalLine] = []
        for file in [file for journal in self._journals() for file in json_lines.pieces(journal)]:
            with contextlib.suppress(FileNotFoundError):
                found += read_changes(read_plain(file, JOURNAL_BYTES).decode(errors="replace"))
        return found

    def _journals(self) -> list[Path]:
        return [self._directory / JOURNAL, *(node.run / JOURNAL for node in self._nodes.values())]
