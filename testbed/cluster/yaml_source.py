"""YAML with positions: plain data and, for every key and value, where it stands in the file.

Only what YAML and JSON share is taken: mappings with text keys, sequences, text, numbers, true, false and null. Tags,
merge keys, duplicate keys and aliases that blow up are problems, not features. Nothing is constructed from a tag.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from testbed.cluster.problems import Position, Problem, shorten

Path = tuple[str | int, ...]
"""Where a value is inside its document: keys and list indices from the root."""

MAX_BYTES = 1_000_000  # a cluster of 1,000 pods written by hand is a quarter of this
MAX_DEPTH = 32  # a container's deepest value is at depth 8
MAX_VALUES = 100_000  # after aliases are followed; an alias bomb passes this within milliseconds
MAX_ALIASES = 100

_SCALAR_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null"))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(slots=True)
class Document:
    """One document of a YAML stream."""

    value: Any
    values: dict[Path, Position] = field(default_factory=dict)
    """Where each value begins."""
    keys: dict[Path, Position] = field(default_factory=dict)
    """Where the key of each mapping entry begins."""

    def position(self, path: Path) -> Position:
        """Where the value at `path` is, or its nearest ancestor that is in the file."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key_position(self, path: Path) -> Position:
        """Where the key that leads to `path` is; for a list item, the item."""
        return self.keys.get(path) or self.position(path)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value before aliases are followed; `content` is scalar data, a list of nodes or a list of (key, node)."""

    position: Position
    content: Any


class _Refused(Exception):
    """Reading cannot go on after this."""

    def __init__(self, position: Position, what: str) -> None:
        self.position, self.what = position, what


def read_documents(data: bytes, name: str, want: str = "a Cluster document") -> tuple[list[Document], list[Problem]]:
    """Read the YAML stream `data`; `name` is the file's name in problems, `want` what an empty one lacks.

    When the stream cannot be read to its end, there are no documents and the first problem says where it ends.
    """
    problems: list[Problem] = []

    def note(position: Position, what: str) -> None:
        problems.append(Problem(f"{name}:{position.line}:{position.column}", what))

    try:
        text = _decode(data)
        documents = [_flatten(node, note) for node in _Composer(text, note).documents()]
    except _Refused as refused:
        note(refused.position, refused.what)
        return [], problems
    if not documents and not problems:
        note(Position(1, 1), f"the file is empty (got nothing; want {want})")
    return documents, problems


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Refused(Position(1, 1), f"the file is too big (got {len(data)} bytes; want at most {MAX_BYTES})")
    for mark, encoding in ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if data.startswith(mark):
            raise _Refused(Position(1, 1), f"a byte order mark (got {encoding} with one; want plain UTF-8 without)")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise _Refused(_end_of(before), f"not UTF-8 text (got byte 0x{data[error.start]:02x}; want UTF-8)") from None
    if control := _CONTROL.search(text):
        want = "want text; is this a binary file?"
        raise _Refused(_end_of(text[: control.start()]), f"a control character (got 0x{ord(control[0]):02x}; {want})")
    return text


def _end_of(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _position(mark: Any) -> Position:  # noqa: ANN401 - PyYAML's own mark has no stub for the C parser
    return Position(mark.line + 1, mark.column + 1)


class _Composer:
    """Builds nodes from parser events, so that depth, tags and aliases are limited while reading."""

    def __init__(self, text: str, note: Callable[[Position, str], None]) -> None:
        self._lines = text.split("\n")
        self._loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        self._note = note
        self._anchors: dict[str, _Node | None] = {}
        self._aliases = 0

    def documents(self) -> Iterator[_Node]:
        """Every document that is not empty. Raises _Refused where the text stops being YAML."""
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                node = self._node(self._next(), 0)
                if node.content is not None:
                    yield node

    def _next(self) -> Any:  # noqa: ANN401 - any of PyYAML's events
        try:
            return self._loader.get_event()
        except yaml.MarkedYAMLError as error:
            position = _position(error.problem_mark or error.context_mark)
            raise _Refused(position, self._syntax(position, str(error.problem))) from None
        except yaml.YAMLError as error:
            raise _Refused(Position(1, 1), f"not YAML: {shorten(str(error))}") from None

    def _syntax(self, position: Position, problem: str) -> str:
        line = self._lines[position.line - 1] if position.line <= len(self._lines) else ""
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            return "a tab in the indentation (got a tab; want spaces)"
        return f"not YAML: {problem}"

    def _node(self, event: Any, depth: int) -> _Node:  # noqa: ANN401
        position = _position(event.start_mark)
        if depth > MAX_DEPTH:
            raise _Refused(position, f"nested too deep (got more than {MAX_DEPTH} levels; want a cluster file)")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, position)
        tag = event.tag
        if tag is not None and not (isinstance(event, yaml.ScalarEvent) and tag == "!"):
            self._note(position, f"a YAML tag is not taken here (got {shorten(tag)}; want a plain value)")
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(position, self._scalar(event, position))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node(position, self._sequence(depth))
        else:
            node = _Node(position, self._mapping(depth))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, position: Position) -> _Node:  # noqa: ANN401
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _Refused(position, f"too many aliases (got more than {MAX_ALIASES}; want at most {MAX_ALIASES})")
        if event.anchor not in self._anchors:
            raise _Refused(
                position, f"an alias without its anchor (got *{event.anchor}; want &{event.anchor} before it)"
            )
        node = self._anchors[event.anchor]
        if node is None:
            raise _Refused(position, f"an alias inside its own anchor (got *{event.anchor}; want a value that ends)")
        return node

    def _scalar(self, event: Any, position: Position) -> Any:  # noqa: ANN401
        if event.tag is not None or not event.implicit[0]:
            return event.value
        tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag not in _SCALAR_TAGS:
            return event.value  # text; and dates, which are text to us
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, event.value), deep=True)
        except (ValueError, yaml.YAMLError):
            got = shorten(event.value)
            self._note(position, f'not a value YAML knows (got {got}; want "{got}", in quotes)')
            return event.value

    def _sequence(self, depth: int) -> list[_Node]:
        items: list[_Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> "_Entries":
        entries = _Entries()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            entries.pairs.append((key, self._node(self._next(), depth + 1)))
        return entries


@dataclass(slots=True)
class _Entries:
    """The entries of a mapping in the order of the file, duplicates included."""

    pairs: list[tuple[_Node, _Node]] = field(default_factory=list)


def _flatten(root: _Node, note: Callable[[Position, str], None]) -> Document:
    """Follow the aliases and note every position. Raises _Refused when that makes too many values."""
    document = Document(None)

    def convert(node: _Node, path: Path) -> Any:  # noqa: ANN401 - plain data
        document.values[path] = node.position
        if len(document.values) > MAX_VALUES:
            got = f"more than {MAX_VALUES} values"
            raise _Refused(node.position, f"aliases make this too big (got {got}; want at most {MAX_VALUES})")
        if isinstance(node.content, list):
            return [convert(item, (*path, index)) for index, item in enumerate(node.content)]
        if not isinstance(node.content, _Entries):
            return node.content
        mapping: dict[str, Any] = {}
        for key, value in node.content.pairs:
            name = key.content
            if not isinstance(name, str):
                note(key.position, f"a key must be text (got {_kind(name)}; want text, in quotes if need be)")
                continue
            inner = (*path, name)
            if name in mapping:
                first = document.keys[inner]
                note(key.position, f"{dotted(inner)}: twice in one mapping (got it at line {first.line} too; want one)")
                continue
            document.keys[inner] = key.position
            mapping[name] = convert(value, inner)
        return mapping

    document.value = convert(root, ())
    return document


def _kind(content: object) -> str:
    if isinstance(content, list):
        return "a list"
    return "a mapping" if isinstance(content, _Entries) else shorten(content)


def dotted(path: Path) -> str:
    """`spec.containers[0].name` for ("spec", "containers", 0, "name")."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if step.isprintable() else shorten(step)
            text += f".{name}" if text else name
    return text
