"""Whether a JSON value is of the type that an answer promises: every field there, none besides, each of its kind."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

NUMBERS: Mapping[type, tuple[type, ...]] = {float: (int, float), int: (int,)}


def mismatches(value: object, kind: Any, at: str = "answer") -> Iterator[str]:  # noqa: ANN401 - any type expression
    """Yield a line for everything that differs."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return
    if is_typeddict(kind):
        yield from _fields(value, kind, at)
    elif origin in (Union, UnionType):
        if all(list(mismatches(value, one, at)) for one in arguments):
            yield from (line for one in arguments if one is not NoneType for line in mismatches(value, one, at))
    elif origin is Literal:
        if value not in arguments:
            yield f"{at}: {value!r} is none of {arguments}"
    elif origin in (list, Sequence):
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
            return
        for number, item in enumerate(value):
            yield from mismatches(item, arguments[0], f"{at}[{number}]")
    elif origin in (dict, Mapping):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no mapping"
            return
        for name, item in value.items():
            yield from mismatches(item, arguments[1], f"{at}.{name}")
    elif not isinstance(value, NUMBERS.get(kind, kind)) or (isinstance(value, bool) and kind is not bool):
        yield f"{at}: {value!r} is no {kind.__name__}"


def _fields(value: object, kind: Any, at: str) -> Iterator[str]:  # noqa: ANN401 - a TypedDict
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no mapping"
        return
    hints = get_type_hints(kind)
    for name in sorted(kind.__required_keys__ - value.keys()):
        yield f"{at}: {name} is missing"
    for name in sorted(value.keys() - hints.keys()):
        yield f"{at}: {name} is not in {kind.__name__}"
    for name in hints.keys() & value.keys():
        yield from mismatches(value[name], hints[name], f"{at}.{name}")
