"""What `apply`, `delete` and `get` need of whoever looks after the objects of one kind in a running lab.

    keepers["Service"] = ServiceKeeper(…)        and `apply -f` takes Services

Every object of a file is checked by its keeper before any of them is put, so that a wrong file changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

Outcome = Literal["created", "configured", "unchanged"]
"""kubectl's words for what `apply` did to an object."""

Wanted = Any
"""A model of the keeper's kind, as `testbed.cluster.manifests` reads it."""


class Keeper(Protocol):
    """Looks after all objects of one kind. Methods may be called from several threads."""

    def wanted(self) -> Mapping[ObjectKey, Wanted]:
        """The objects that were applied, as they were applied."""

    def check(self, applied: Sequence[tuple[Source, Wanted]]) -> Iterator[Problem]:
        """What the lab as it is has against these objects of one file; changes nothing."""

    def warnings(self, applied: Sequence[tuple[Source, Wanted]]) -> Iterator[Problem]:
        """What is probably a mistake and is done all the same; asked after everything was put."""

    def outcome(self, wanted: Wanted) -> Outcome:
        """What `put` would do to this object, which `check` has just found nothing against; changes nothing."""

    def put(self, wanted: Wanted) -> Outcome:
        """Want this object from now on; returns before it is all done."""

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Want it no longer; returns when it is gone, or will be once all have acted on `pods_changed`.

        `grace_s` is for pods, None: their own. Raises KeyError.
        """

    def why_not_ready(self, key: ObjectKey) -> str:
        """What the object still lacks, in a line; empty when it is all there. For `apply --wait`."""


def outcome_of(before: Wanted | None, wanted: Wanted) -> Outcome:
    """Return what it is called to want this object after that one. Pure."""
    if before is None:
        return "created"
    return "unchanged" if wanted == before else "configured"
