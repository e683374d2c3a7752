"""Regular expressions in Go's syntax (RE2, as in flannel), matched by Python's `re`.

An expression that Go accepts matches the same here; one that Go refuses is refused with Go's message. The only
exception is Unicode scripts such as `\\p{Greek}`, which are refused here. Only whether there is a match counts, so
captures and greediness make no difference.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

MOST_REPEATED = 1000
"""Go's own limit of {n,m}."""

Range = tuple[int, int]
_ASCII: dict[str, Sequence[Range]] = {
    "alnum": [(48, 57), (65, 90), (97, 122)],
    "alpha": [(65, 90), (97, 122)],
    "ascii": [(0, 127)],
    "blank": [(9, 9), (32, 32)],
    "cntrl": [(0, 31), (127, 127)],
    "digit": [(48, 57)],
    "graph": [(33, 126)],
    "lower": [(97, 122)],
    "print": [(32, 126)],
    "punct": [(33, 47), (58, 64), (91, 96), (123, 126)],
    "space": [(9, 13), (32, 32)],
    "upper": [(65, 90)],
    "word": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "xdigit": [(48, 57), (65, 70), (97, 102)],
}
_PERL: dict[str, Sequence[Range]] = {
    "d": _ASCII["digit"],
    "s": [(9, 10), (12, 13), (32, 32)],
    "w": _ASCII["word"],
}
_AT = {"A": r"(?:\A)", "z": r"(?:\Z)", "b": r"(?:\b)", "B": r"(?:\B)"}
_CONTROLS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CATEGORIES = "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs"
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAMED = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_REPEAT = re.compile(r"\{([0-9]+)(,?)([0-9]*)\}")
_POSIX = re.compile(r"\[:(\^?)([a-z]+):\]")
_UNICODE = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|([A-Z]))")


@dataclass(frozen=True, slots=True)
class GoRegex:
    """A regular expression to search for."""

    pattern: str
    """The original text."""
    _compiled: re.Pattern[str] = field(compare=False, repr=False)

    def search(self, text: str) -> bool:
        """Return whether a text contains a match."""
        return self._compiled.search(text) is not None


def compile_go_regex(pattern: str) -> GoRegex:
    """Compile a regular expression. Raises ValueError with Go's message."""
    translated = _Translation(pattern).translate()
    try:
        return GoRegex(pattern, re.compile(translated, re.ASCII))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expression too large: {error}") from None


class _Translation:
    """One pass over a pattern; flags are put around each atom, because Go allows them in the middle of a group."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._out: list[str] = []
        self._flags: frozenset[str] = frozenset()
        self._outer: list[frozenset[str]] = []
        """The flags around each open group."""
        self._names: set[str] = set()
        self._before = "nothing"
        """What a repetition would apply to: nothing, an atom, or a repetition."""

    def translate(self) -> str:
        special: dict[str, Callable[[], None]] = {
            "(": self._open,
            ")": self._close,
            "|": lambda: self._put("|", "nothing", 1),
            "[": self._class,
            "\\": self._escape,
            ".": lambda: self._put("(?s:.)" if "s" in self._flags else ".", "atom", 1),
            "^": lambda: self._put("(?m:^)" if "m" in self._flags else _AT["A"], "atom", 1),
            "$": lambda: self._put("(?m:$)" if "m" in self._flags else _AT["z"], "atom", 1),
            **dict.fromkeys("*+?", self._repeat),
        }
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "{" and _REPEAT.match(self._text, self._at):
                self._repeat()
            elif char in special:
                special[char]()
            else:
                self._literal(ord(char))
                self._at += 1
        if self._outer:
            raise ValueError("missing closing ): " + self._text)
        return "".join(self._out)

    def _put(self, text: str, before: str, length: int) -> None:
        self._out.append(text)
        self._before = before
        self._at += length

    def _literal(self, code: int) -> None:
        text = re.escape(chr(code))
        self._put(f"(?i:{text})" if "i" in self._flags else text, "atom", 0)

    def _open(self) -> None:
        rest = self._text[self._at :]
        if not rest.startswith("(?"):
            self._outer.append(self._flags)
            self._put("(?:", "nothing", 1)
        elif named := _NAMED.match(rest):
            if named[1] in self._names:
                raise ValueError(f"duplicate capture group name: {named[1]}")
            self._names.add(named[1])
            self._outer.append(self._flags)
            self._put("(?:", "nothing", len(named[0]))
        elif flags := _FLAGS.match(rest):
            inner = (self._flags | set(flags[1])) - set(flags[2] or "")
            if flags[3] == ":":
                self._outer.append(self._flags)
                self._put("(?:", "nothing", 0)
            self._flags = inner
            self._at += len(flags[0])
        elif rest.startswith(("(?P<", "(?<")) and not rest.startswith(("(?<=", "(?<!")):
            raise ValueError(f"invalid named capture: {rest}")
        else:
            what = "as Go has no look-ahead, look-behind, atomic groups, conditions or comments"
            raise ValueError(f"invalid or unsupported Perl syntax: {rest[:4]}, {what}")

    def _close(self) -> None:
        if not self._outer:
            raise ValueError("unexpected ): " + self._text)
        self._flags = self._outer.pop()
        self._put(")", "atom", 1)

    def _repeat(self) -> None:
        counted = _REPEAT.match(self._text, self._at)
        operator = counted[0] if counted else self._text[self._at]
        if counted:
            most = counted[3] or counted[1]
            if max(int(counted[1]), int(most)) > MOST_REPEATED or int(most) < int(counted[1]):
                raise ValueError(f"invalid repeat count: {operator}")
        if self._before != "atom":
            nested = self._before == "repetition"
            words = "invalid nested repetition operator" if nested else "missing argument to repetition operator"
            raise ValueError(f"{words}: {operator}")
        self._put(operator, "repetition", len(operator))
        if self._text[self._at : self._at + 1] == "?":
            # A lazy repetition makes no difference to whether there is a match.
            self._at += 1

    def _escape(self) -> None:
        kind = self._text[self._at + 1 : self._at + 2]
        if kind in _AT and kind:
            self._put(_AT[kind], "atom", 2)
        elif kind == "Q":
            quoted, _, _ = self._text[self._at + 2 :].partition(r"\E")
            self._at += 2 + len(quoted) + (2 if self._text.startswith(r"\E", self._at + 2 + len(quoted)) else 0)
            for char in quoted:
                self._literal(ord(char))
        elif (ranges := self._named_class()) is not None:
            self._ranges(ranges)
        else:
            self._literal(self._char())

    def _class(self) -> None:
        start = self._at
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        found: list[Range] = []
        first = True
        while first or not self._text.startswith("]", self._at):
            first = False
            if self._at >= len(self._text):
                raise ValueError(f"missing closing ]: {self._text[start:]}")
            posix = _POSIX.match(self._text, self._at)
            if posix:
                if posix[2] not in _ASCII:
                    raise ValueError(f"invalid character class range: {posix[0]}")
                found += _without(_ASCII[posix[2]]) if posix[1] else _ASCII[posix[2]]
                self._at += len(posix[0])
            elif (ranges := self._named_class()) is not None:
                found += ranges
            else:
                found.append(self._range(start))
        self._at += 1
        self._ranges(_without(found) if negated and "i" not in self._flags else found, negated=negated)

    def _range(self, start: int) -> Range:
        at, low = self._at, self._char()
        high = low
        if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
            self._at += 1
            if self._at >= len(self._text):
                raise ValueError(f"missing closing ]: {self._text[start:]}")
            high = self._char()
        if high < low:
            raise ValueError(f"invalid character class range: {self._text[at : self._at]}")
        return low, high

    def _named_class(self) -> Iterable[Range] | None:
        r"""Return the class `\d`, `\S`, `\pN` … that starts here; None if there is none."""
        kind = self._text[self._at : self._at + 2]
        if kind[:1] == "\\" and kind[1:].lower() in _PERL and len(kind) == 2:
            self._at += 2
            ranges = _PERL[kind[1].lower()]
            return _without(ranges) if kind[1].isupper() else ranges
        if kind not in (r"\p", r"\P"):
            return None
        found = _UNICODE.match(self._text, self._at)
        name = (found[3] or found[4]) if found else ""
        if not found or name not in {*_CATEGORIES.split(), "Any"}:
            shown = found[0] if found else self._text[self._at :]
            what = "want a category such as \\pN or \\p{Lu}; scripts are not supported here"
            raise ValueError(f"invalid character class range: {shown}, {what}")
        self._at += len(found[0])
        ranges = [(0, sys.maxunicode)] if name == "Any" else _category(name)
        return _without(ranges) if (found[1] == "P") != bool(found[2]) else ranges

    def _ranges(self, ranges: Iterable[Range], *, negated: bool = False) -> None:
        """Put a class; if case is ignored, Python adds the other case before it negates the class."""
        body = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
        sign = "^" if negated and "i" in self._flags else ""
        text = f"[{sign}{body}]" if body else "(?:(?!))"
        self._put(f"(?i:{text})" if "i" in self._flags else text, "atom", 0)

    def _char(self) -> int:
        """Return the one character that starts here, escaped or not."""
        char = self._text[self._at]
        if char != "\\":
            self._at += 1
            return ord(char)
        rest = self._text[self._at + 1 :]
        if not rest:
            raise ValueError("trailing backslash at end of expression")
        octal = re.match(r"0[0-7]{0,2}|[1-7][0-7]{1,2}", rest)
        hexadecimal = re.match(r"x(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]{1,8})\})", rest)
        if rest[0] in _CONTROLS:
            code, length = _CONTROLS[rest[0]], 1
        elif octal:
            code, length = int(octal[0], 8), len(octal[0])
        elif hexadecimal and int(hexadecimal[1] or hexadecimal[2], 16) <= sys.maxunicode:
            code, length = int(hexadecimal[1] or hexadecimal[2], 16), len(hexadecimal[0])
        elif rest[0].isascii() and not rest[0].isalnum():
            code, length = ord(rest[0]), 1
        else:
            raise ValueError(f"invalid escape sequence: \\{rest[0]}")
        self._at += 1 + length
        return code


def _without(ranges: Iterable[Range]) -> list[Range]:
    """Return all other characters."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return [*found, (start, sys.maxunicode)] if start <= sys.maxunicode else found


def _category(name: str) -> list[Range]:
    """Return the characters of a Unicode category: `N`, or `Nd`."""
    import unicodedata

    found: list[Range] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if found and found[-1][1] == code - 1:
                found[-1] = (found[-1][0], code)
            else:
                found.append((code, code))
    return found
