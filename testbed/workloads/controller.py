"""The interface of a kind's controller in a running lab for `apply`, `delete` and `get`.

    controllers["Service"] = ServiceController(…)        and `apply -f` takes Services

Every object of a file is checked by its controller before any of them is stored, so that an invalid file changes
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

Outcome = Literal["created", "configured", "unchanged"]
"""kubectl's words for the result of `apply` for an object."""

DELETED = "deleted in the meantime"
"""Why an object that is waited for is not ready."""

Wanted = Any
"""A model of the controller's kind, as `testbed.cluster.manifests` reads it."""


class Controller(Protocol):
    """Controls all objects of one kind. Methods may be called from several threads."""

    def wanted(self) -> Mapping[ObjectKey, Wanted]:
        """Return the objects as they were applied."""

    def check(self, applied: Sequence[tuple[Source, Wanted]]) -> Iterator[Problem]:
        """Return the lab's objections to these objects of one file; change nothing."""

    def warnings(self, applied: Sequence[tuple[Source, Wanted]]) -> Iterator[Problem]:
        """Return probable mistakes that are accepted all the same; called after everything was stored."""

    def outcome(self, wanted: Wanted) -> Outcome:
        """Return what `put` would do with this object, which `check` has just accepted; change nothing."""

    def put(self, wanted: Wanted) -> Outcome:
        """Set this object as desired; return before it is all done."""

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Remove it; return when it is gone, or will be once all have acted on `pods_changed`.

        `grace_s` is for pods, None: their own. Raises KeyError.
        """

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what the object is missing, in a line; empty if it is ready. For `apply --wait`."""


def outcome_of(before: Wanted | None, wanted: Wanted) -> Outcome:
    """Return the result of applying this object after that one. Pure."""
    if before is None:
        return "created"
    return "unchanged" if wanted == before else "configured"
