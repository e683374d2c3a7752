"""Fields of flannel's JSON objects, read one by one with every mistake collected. Pure."""

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class WrongValue(Exception):
    """A field has an invalid value: `what` describes it, and `want` a valid one."""

    def __init__(self, what: str, want: str, *, shown: object = None) -> None:
        """Show `shown` in the error line instead of the value, if that is secret or only partly wrong."""
        super().__init__(what)
        self.what, self.want, self.shown = what, want, shown


class Fields:
    """A JSON object read as in Go: keys in any case, null as absent. Mistakes are collected, not raised."""

    def __init__(self, values: Mapping[str, object], prefix: str = "") -> None:
        """Read `values`; names in `problems` start with `prefix`."""
        # The last spelling wins, as in Go.
        self._values = {name.lower(): value for name, value in values.items()}
        self._prefix = prefix
        self.problems: list[str] = []

    def __contains__(self, name: str) -> bool:
        """Return whether the key is present, even with null."""
        return name.lower() in self._values

    def get(self, name: str) -> object:
        """Return the value, or None."""
        return self._values.get(name.lower())

    def read(self, name: str, read: Callable[[object], T], default: T) -> T:
        """Return the value through `read`; the default if it is absent or invalid, which is recorded."""
        value = self.get(name)
        return default if value is None else self.check(name, value, read, default)

    def check(self, name: str, value: object, read: Callable[[object], T], default: T) -> T:
        """Return `value`, taken as the field's, through `read`; the default if it is invalid, which is recorded."""
        try:
            return read(value)
        except WrongValue as wrong:
            self.problem(name, wrong.what, value if wrong.shown is None else wrong.shown, wrong.want)
            return default

    def problem(self, name: str, what: str, got: object, want: str) -> None:
        """Record that a field is wrong."""
        shown = json.dumps(got, ensure_ascii=False)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        self.problems.append(f"{self._prefix}{name}: {what} (got {shown}; want {want})")


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise WrongValue("not a boolean", "true or false")
    return value


def whole(lowest: int, highest: int, want: str, what: str = "not such a number") -> Callable[[object], int]:
    """Return a reader of whole numbers within these limits."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise WrongValue(what, want)
        return value

    return read


def text(value: object, want: str = "a text in quotes") -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise WrongValue("not a string", want)
    return value
