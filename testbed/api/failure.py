"""Errors in the form of Kubernetes' clients: a Status with a code and a reason."""

import re
from http import HTTPStatus
from typing import Any

from testbed.api.resources import ApiPlace
from testbed.errors import InvalidInput, TestbedError

REASONS = {410: "Expired", 413: "RequestEntityTooLarge", 422: "Invalid", 500: "InternalError"}
"""Kubernetes' words where they are not those of HTTP."""
_NOT_THERE = re.compile(r"^no \S+ named ")


class Failure(Exception):
    """An error for a client."""

    def __init__(self, code: int, message: str, place: ApiPlace | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or REASONS.get(code, HTTPStatus(code).phrase.replace(" ", ""))
        self._place = place

    def status(self) -> dict[str, Any]:
        """Return the v1 Status."""
        details: dict[str, Any] = {}
        if self._place is not None:
            details = {"group": self._place.resource.group, "kind": self._place.resource.kind.plural}
            details |= {"name": self._place.name} if self._place.name else {}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def success(**details: str | None) -> dict[str, Any]:
    """Return the v1 Status of a request that has no other answer."""
    about = {"details": details} if details else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **about}


def not_found(place: ApiPlace) -> Failure:
    """Return the failure for a missing object."""
    return Failure(404, f'{_called(place)} "{place.name}" not found', place)


def already_there(place: ApiPlace) -> Failure:
    """Return the failure for an existing object."""
    return Failure(409, f'{_called(place)} "{place.name}" already exists', place, "AlreadyExists")


def conflict(place: ApiPlace) -> Failure:
    """Return the failure for a change of an object that has changed in the meantime."""
    what = "the object has been modified; please apply your changes to the latest version and try again"
    return Failure(409, f'Operation cannot be fulfilled on {_called(place)} "{place.name}": {what}', place)


def is_not_there(error: TestbedError) -> bool:
    """Return whether the lab says that an object is missing."""
    return bool(_NOT_THERE.match(str(error)))


def from_lab(error: TestbedError, place: ApiPlace | None = None) -> Failure:
    """Return the failure for the lab's error."""
    if isinstance(error, InvalidInput) or error.exit_code == InvalidInput.exit_code:
        # kubectl prints the message of a BadRequest; of an Invalid it would print only the field.
        return Failure(400, str(error), place)
    if is_not_there(error):
        return Failure(404, str(error), place)
    return Failure(500, str(error), place)


def _called(place: ApiPlace) -> str:
    kind = place.resource.kind
    return f"{kind.plural}.{place.resource.group}" if place.resource.group else kind.plural
