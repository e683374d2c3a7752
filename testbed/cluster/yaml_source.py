"""YAML with positions: plain data and, for every key and value, its place in the file.

Scalars are parsed as by kubectl, whose reader is go-yaml's second version: `y` and `on` are booleans, `0o7` and `1_000`
numbers, `12:30` and dates text. Merge keys are followed. Duplicate keys, alias bombs and tags that are not YAML's own
are problems; nothing is constructed from a tag.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from yaml.composer import Composer

from testbed.cluster.problems import Position, Problem, shorten
from testbed.plain_files import MAX_BYTES

Path = tuple[str | int, ...]
"""Path of a value inside its document: keys and list indices from the root."""

MAX_DEPTH = 32  # a container's deepest value is at depth 8
MAX_VALUES = 100_000  # after aliases are followed; an alias bomb passes this within milliseconds

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MERGE = "<<"
_PLAIN = "plain"
"""The tag of a scalar with neither quotes nor a tag."""
_YAML = "tag:yaml.org,2002:"
_TYPES: Mapping[str, tuple[type, ...]] = {
    f"{_YAML}null": (type(None),),
    f"{_YAML}bool": (bool,),
    f"{_YAML}int": (int,),
    f"{_YAML}float": (float, int),
}
"""Tag → the type that its scalar must parse as."""
_WORDS: Mapping[str, object] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
MOST_DIGITS = 100
"""Longer numbers are text."""


def plain_value(text: str) -> object:
    """Return the value of an unquoted scalar as kubectl parses it: null, a boolean, a number, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > MOST_DIGITS:
        return text
    number = text if text[0] == "." else text.replace("_", "")
    if found := _INTEGER.fullmatch(number):
        digits, base = next((group, base) for group, base in zip(found.groups()[1:], _BASES, strict=True) if group)
        return int(found[1] + digits, base)
    if not _FLOAT.fullmatch(number) or math.isinf(value := float(number)):
        return text
    # kubectl continues with JSON, in which a whole number has no point.
    return int(value) if value.is_integer() else value


PlaceT = TypeVar("PlaceT", Position, str)


@dataclass(slots=True)
class Document:
    """One document of a YAML stream."""

    value: Any
    values: dict[Path, Position] = field(default_factory=dict)
    """The start of each value."""
    keys: dict[Path, Position] = field(default_factory=dict)
    """The start of each mapping entry's key."""
    written: dict[Path, str] = field(default_factory=dict)
    """The spelling of each boolean and each number in the file."""

    def position(self, path: Path) -> Position:
        """Return the position of the value at `path`, or of its nearest ancestor in the file."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key_position(self, path: Path) -> Position:
        """Return the position of the key that leads to `path`; for a list item, of the item."""
        return self.keys.get(path) or self.position(path)

    def items(self, key: str) -> "list[Document]":
        """Return each item of the list under `key` as its own document; positions stay those in the file."""
        found = [Document(value) for value in self.value[key]]
        _share(key, self.values, [one.values for one in found])
        _share(key, self.keys, [one.keys for one in found])
        _share(key, self.written, [one.written for one in found])
        return found


def _share(key: str, places: Mapping[Path, PlaceT], of_items: Sequence[dict[Path, PlaceT]]) -> None:
    for (first, *rest), place in ((path, place) for path, place in places.items() if path):
        if first == key and rest and isinstance(number := rest[0], int):
            of_items[number][tuple(rest[1:])] = place


class _Refused(Exception):
    """Reading cannot continue."""

    def __init__(self, position: Position, what: str) -> None:
        self.position, self.what = position, what


Note = Callable[[Position, str], None]


def read_documents(data: bytes, name: str, want: str = "a Cluster document") -> tuple[list[Document], list[Problem]]:
    """Read the YAML stream `data`; `name` is the file's name in problems, `want` what an empty one is missing.

    If the stream cannot be read to its end, there are no documents and the first problem has the place.
    """
    problems: list[Problem] = []

    def note(position: Position, what: str) -> None:
        problems.append(Problem(f"{name}:{position.line}:{position.column}", what))

    try:
        documents = [_Reader(note).read(root) for root in _compose(_decode(data))]
    except _Refused as refused:
        note(refused.position, refused.what)
        return [], problems
    documents = [document for document in documents if document.value is not None]
    if not documents and not problems:
        note(Position(1, 1), f"the file is empty (got nothing; want {want})")
    return documents, problems


def dump_documents(documents: Iterable[object], **options: Any) -> str:  # noqa: ANN401 - PyYAML's own
    """Return a YAML stream that reads the same here, in kubectl and in other programs: anything that one of them would
    parse as a number or a boolean is quoted.
    """
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, **options)
    return text


class _Dumper(yaml.SafeDumper):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401 - PyYAML has no types here
        if kind is yaml.ScalarNode and implicit[0] and isinstance(plain_value(value), bool | int | float):
            return f"{_YAML}{type(plain_value(value)).__name__}"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


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


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Composer(Composer, _Loader):  # type: ignore[misc] # the C parser has no types
    """PyYAML's composer on libyaml's events, which leaves plain scalars to us and limits the depth."""

    def __init__(self, text: str) -> None:
        _Loader.__init__(self, text)
        Composer.__init__(self)
        self._depth = 0
        self._ended: set[str] = set()
        """Anchors whose values are complete."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        event = self.peek_event()
        position, anchor = _position(event.start_mark), event.anchor
        if self._depth > MAX_DEPTH:
            raise _Refused(position, f"nested too deep (got more than {MAX_DEPTH} levels; want a cluster file)")
        if isinstance(event, yaml.AliasEvent):
            if anchor not in self.anchors:
                want = f"&{anchor} before it"
                raise _Refused(position, f"an alias without its anchor (got *{anchor}; want {want})")
            if anchor not in self._ended:
                raise _Refused(position, f"an alias inside its own anchor (got *{anchor}; want a value that ends)")
            return super().compose_node(parent, index)
        # YAML allows a name to be redefined; PyYAML does not.
        self.anchors.pop(anchor, None)
        self._ended.discard(anchor)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._ended.add(anchor)
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else super().resolve(kind, value, (False, False))


def _compose(text: str) -> list[yaml.Node]:
    """Return the root of every document. Raises _Refused if the text is not YAML."""
    composer = _Composer(text)
    roots: list[yaml.Node] = []
    try:
        while composer.check_node():
            if (root := composer.get_node()) is not None:
                roots.append(root)
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        line = text.split("\n")[position.line - 1 : position.line] or [""]
        if "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]:
            raise _Refused(position, "a tab in the indentation (got a tab; want spaces)") from None
        raise _Refused(position, f"not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise _Refused(Position(1, 1), f"not YAML: {shorten(str(error))}") from None
    return roots


Entries = dict[str, tuple[yaml.Node, yaml.Node]]
"""Name → its key and its value."""


class _Reader:
    """Resolves the aliases and merge keys of one document and records every position."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._document = Document(None)
        self._entries: dict[int, Entries] = {}
        """By the mapping's id: one that is merged into many is read once."""

    def read(self, root: yaml.Node) -> Document:
        """Return the document. Raises _Refused if aliases create too many values."""
        self._document.value = self._convert(root, ())
        return self._document

    def _convert(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - plain data
        position = _position(node.start_mark)
        self._document.values[path] = position
        if len(self._document.values) > MAX_VALUES:
            got = f"more than {MAX_VALUES} values"
            raise _Refused(position, f"aliases make this too big (got {got}; want at most {MAX_VALUES})")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        known = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != f"{_YAML}{known}":
            self._refuse_tag(node)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self._convert(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        entries = self._entries_of(node, path)
        for name, (key, _) in entries.items():
            self._document.keys[*path, name] = _position(key.start_mark)
        return {name: self._convert(inner, (*path, name)) for name, (_, inner) in entries.items()}

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        value = plain_value(node.value)
        if node.tag == _PLAIN:
            if value is not None and not isinstance(value, str):
                self._document.written[path] = node.value
            return value
        if node.tag == f"{_YAML}str":
            return node.value
        if node.tag not in _TYPES:
            self._refuse_tag(node)
            return None
        if type(value) not in _TYPES[node.tag]:
            what = f"does not match its tag (got {shorten(node.value)}; want !!{node.tag.removeprefix(_YAML)})"
            self._note(_position(node.start_mark), what)
            return None
        return value

    def _refuse_tag(self, node: yaml.Node) -> None:
        what = f"YAML tags are not supported (got {shorten(node.tag)}; want a plain value)"
        self._note(_position(node.start_mark), what)

    def _entries_of(self, node: yaml.MappingNode, path: Path) -> Entries:
        """Return the entries of a mapping; its own hide merged ones."""
        if id(node) in self._entries:
            return self._entries[id(node)]
        own: Entries = {}
        merged: Entries = {}
        for key, value in node.value:
            name = plain_value(key.value) if isinstance(key, yaml.ScalarNode) and key.tag == _PLAIN else key.value
            if key.tag == _PLAIN and name == _MERGE:
                for entry, found in self._merged(value, path).items():
                    merged.setdefault(entry, found)
            elif not isinstance(name, str):
                got = "a list" if isinstance(key, yaml.SequenceNode) else "a mapping"
                got = shorten(key.value or "nothing") if isinstance(key, yaml.ScalarNode) else got
                self._note(
                    _position(key.start_mark), f"a key must be text (got {got}; want text, in quotes if need be)"
                )
            elif name in own:
                got = f"it at line {_position(own[name][0].start_mark).line} too"
                what = f"{dotted((*path, name))}: twice in one mapping (got {got}; want one)"
                self._note(_position(key.start_mark), what)
            else:
                own[name] = (key, value)
        entries = self._entries[id(node)] = {**merged, **own}
        return entries

    def _merged(self, node: yaml.Node, path: Path) -> Entries:
        found: Entries = {}
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(one, yaml.MappingNode):
                got = shorten(one.value or "nothing") if isinstance(one, yaml.ScalarNode) else "a list"
                what = f"{dotted((*path, _MERGE))}: not what can be merged (got {got}; want mappings, such as *ANCHOR)"
                self._note(_position(one.start_mark), what)
                continue
            for name, entry in self._entries_of(one, path).items():
                found.setdefault(name, entry)
        return found


def dotted(path: Path) -> str:
    """Return `spec.containers[0].name` for ("spec", "containers", 0, "name")."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if step.isprintable() else shorten(step)
            text += f".{name}" if text else name
    return text
