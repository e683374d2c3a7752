"""The journal of kernel changes as a shell script that a person can read, type, or run in an empty namespace. Pure."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.control.answers.lab import KernelChange

HEADER = """\
#!/bin/sh
# Every change that lab {lab} made to the kernel, in order.
# It builds the same network without Mininet, agents and pods (packets between nodes need an agent at flannel0):
#
#   sudo unshare --mount --net sh -c 'mount -t tmpfs tmpfs /run && sh commands.sh && ip netns exec node1 bash'
"""
NODE_HEADER = """\
#!/bin/sh
# Every change that was made on {node} of lab {lab}, in order, as typed there.
"""
GAP = "# This lab has changed much: the first changes and the newest are kept, some in between are not."
NEW_LINKS = ("ip link add", "ip tuntap add")
END_OF_INPUT = "END"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of the journal."""

    at: float
    """Seconds since the epoch."""
    node: str
    """Machine, pod, or `lab` for the lab's own namespace."""
    command: tuple[str, ...]
    why: str
    stdin: str | None


def read_changes(text: str) -> Iterator[JournalLine]:
    """Parse the changes of one journal file; an incomplete line at its end is ignored."""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            yield JournalLine(entry["at"], entry["node"], tuple(entry["command"]), entry["why"], entry["input"])
        except (ValueError, KeyError, TypeError):
            continue


def script(changes: Iterable[JournalLine], lab: str, node: str | None = None, *, complete: bool = True) -> str:
    """Return the whole lab's script; with `node` that of the node, as typed there. `complete`: no change is missing."""
    ordered = sorted(changes, key=lambda change: change.at)
    lines: list[str] = []
    header = HEADER.format(lab=lab) if node is None else NODE_HEADER.format(node=node, lab=lab)
    lines += [*header.splitlines(), *([] if complete else [GAP])]
    if node is not None:
        ordered = [change for change in ordered if change.node == node]
    else:
        lines += ["", "# the machines and pods, each a network namespace"]
        lines += [f"ip netns add {shlex.quote(name)}" for name in dict.fromkeys(change.node for change in ordered)]
    before = ""
    there: set[tuple[str, str]] = set()
    for change in ordered:
        place = "" if node is not None else f"{change.node}: "
        if (why := place + change.why) != before:
            lines += ["", f"# {why}"]
            before = why
        lines += _gone_by_itself(change, there, alone=node is not None)
        lines += _typed(change, alone=node is not None)
    return "\n".join(lines) + "\n"


def _gone_by_itself(change: JournalLine, there: set[tuple[str, str]], *, alone: bool) -> list[str]:
    """Return links that the kernel removed with their process or namespace, without a record."""
    words = change.command
    name = _link_name(words)
    if name is None:
        return []
    key = (change.node, name)
    if words[:3] == ("ip", "link", "delete"):
        there.discard(key)
        return []
    if key not in there:
        there.add(key)
        return []
    removal = JournalLine(change.at, change.node, ("ip", "link", "delete", name), "", None)
    return [*_typed(removal, alone=alone, comment="the previous one was removed with its process")]


def _link_name(words: Sequence[str]) -> str | None:
    if " ".join(words[:3]) not in (*NEW_LINKS, "ip link delete"):
        return None
    rest = list(words[3:])
    return rest[1] if rest[0] in ("dev", "name") else rest[0]


def _typed(change: JournalLine, *, alone: bool, comment: str = "") -> list[str]:
    words = list(change.command)
    if not alone:
        words = _inside(change.node, words)
    line = shlex.join(words) + (f"  # {comment}" if comment else "")
    if change.stdin is None:
        return [line]
    return [f"{line} <<'{END_OF_INPUT}'", *change.stdin.rstrip("\n").splitlines(), END_OF_INPUT]


def _inside(node: str, words: list[str]) -> list[str]:
    if words[0] == "ip":
        return ["ip", "-n", node, *words[1:]]
    if words[0] in ("bridge", "tc"):
        return [words[0], "-n", node, *words[1:]]
    return ["ip", "netns", "exec", node, *words]


def as_json(changes: Iterable[JournalLine]) -> list[KernelChange]:
    """Return the changes in order, in the journal's format."""
    return [
        {
            "at": change.at,
            "node": change.node,
            "command": list(change.command),
            "input": change.stdin,
            "why": change.why,
        }
        for change in sorted(changes, key=lambda change: change.at)
    ]
