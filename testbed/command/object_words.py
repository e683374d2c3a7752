"""The objects named on a command line, in kubectl's forms. Pure.

`pods`, `po,svc web`, `pod a b`, `deploy/web svc/web`
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from testbed.cluster.kinds import ALL, BY_WORD, Kind, no_such_kind
from testbed.cluster.object_key import key_of_object

Meant = dict[Kind, tuple[str, ...]]
"""Names by kind, in the order typed; without names, all objects of the kind."""
GROUPS = ("", "apps", "v1.apps")
"""The part after a kind and a dot, as in `deployments.apps`."""


def kind_named(word: str) -> Kind | None:
    """Return the kind that a word means: `Pod`, `po`, `deployments.apps`; None for any other word."""
    name, _, group = word.lower().partition(".")
    return BY_WORD.get(name) if group in GROUPS else None


def name_of(item: Mapping[str, Any]) -> str:
    """Return the name on a command line of an object that `get` found."""
    return str(key_of_object(item))


def objects_meant(words: Sequence[str], wanted: Collection[Kind], *, may_be_all: bool = False) -> Meant:
    """Return the named objects, of the verb's kinds `wanted`. Raises click.UsageError.

    `may_be_all`: the word `all` stands for several kinds.
    """
    if words and "/" in words[0]:
        return _by_pairs(words, wanted)
    found: dict[Kind, tuple[str, ...]] = {}
    for word in words[0].split(",") if words else ():
        several = [kind for kind in wanted if kind.in_all] if may_be_all and word == ALL else []
        for kind in several or [_kind(word, wanted, may_be_all=may_be_all)]:
            found[kind] = tuple(dict.fromkeys(words[1:]))
    for name in words[1:]:
        _refuse_mixture(words, is_mixed=kind_named(name.partition("/")[0]) is not None and "/" in name)
    return found


def _by_pairs(words: Sequence[str], wanted: Collection[Kind]) -> Meant:
    found: dict[Kind, dict[str, None]] = {}
    for word in words:
        left, slash, name = word.partition("/")
        _refuse_mixture(words, is_mixed=not slash)
        kind = _kind(left, wanted)
        if not name:
            raise _wrong(f"want a name (got {word}; want {kind.singular}/NAME)")
        found.setdefault(kind, {})[name] = None
    return {kind: tuple(names) for kind, names in found.items()}


def _kind(word: str, wanted: Collection[Kind], *, may_be_all: bool = False) -> Kind:
    kind = kind_named(word)
    if kind is None or kind not in wanted:
        raise _wrong(no_such_kind(word, *(one.plural for one in wanted), *([ALL] if may_be_all else [])))
    return kind


def _refuse_mixture(words: Sequence[str], *, is_mixed: bool) -> None:
    if is_mixed:
        raise _wrong(f"KIND NAME and KIND/NAME do not mix (got {' '.join(words)}; want KIND NAME… or KIND/NAME…)")


def _wrong(what: str) -> click.UsageError:
    return click.UsageError(what, click.get_current_context())
