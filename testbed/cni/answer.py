"""What a plugin printed: a result, its versions, or an error (CNI SPEC.md, section 5). Pure."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TRY_AGAIN = 11
"""The code of an error that passes (CNI SPEC.md, section 5)."""
SHOWN = 300
"""Characters of an answer that is not what it should be."""


class WrongAnswer(Exception):
    """A plugin reported success, and its answer is not what the specification asks for; one line."""


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a plugin, as it went."""

    command: str
    plugin: str
    stdin: str
    exit_code: int | None
    """Negative for a signal; None if it was not started, or was killed at the time limit."""
    stdout: str
    stderr: str
    seconds: float
    failure: str = ""
    """Why it could not be started or was ended; empty if it ended by itself."""

    @property
    def succeeded(self) -> bool:
        """Return whether the plugin itself reports success."""
        return self.exit_code == 0

    @property
    def answer(self) -> str:
        """Return what it printed, in one line: standard output, else standard error."""
        return " ".join((self.stdout.strip() or self.stderr.strip()).split())

    def line(self) -> str:
        """Return the whole call in one line."""
        ended = self.failure or f"exit code {self.exit_code}"
        said = f"; stderr {' '.join(self.stderr.split())}" if self.stdout.strip() and self.stderr.strip() else ""
        stdin = f"; stdin {self.stdin}" if self.stdin else ""
        return (
            f"{self.command} {self.plugin}: {ended}, {self.seconds:.3f} s{stdin}; answer {self.answer or 'none'}{said}"
        )


class _Interface(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    mac: str = ""
    sandbox: str = ""


class _Address(BaseModel):
    model_config = ConfigDict(frozen=True)

    address: str
    interface: int | None = None


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)

    interfaces: tuple[_Interface, ...] = ()
    ips: tuple[_Address, ...] = ()


@dataclass(frozen=True, slots=True)
class AddResult:
    """The success of an ADD."""

    raw: Mapping[str, Any]
    """As the plugin printed it; the next plugin, CHECK and DEL get it."""
    node_links: tuple[str, ...] = ()
    """Names of the interfaces on the node, bridges among them."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """Of the pod."""


class _Error(BaseModel):
    code: int
    msg: str = ""
    details: str = ""


class _Versions(BaseModel):
    supported: tuple[str, ...] = Field(alias="supportedVersions")


def read_result(call: Call) -> AddResult:
    """Return what an ADD that exited with 0 made. Raises WrongAnswer."""
    raw = _json_of(call)
    try:
        found = _Result.model_validate(raw)
        own = {number for number, one in enumerate(found.interfaces) if one.sandbox}
        addresses = tuple(
            ip_interface(one.address) for one in found.ips if one.interface is None or one.interface in own
        )
    except ValueError as error:
        raise WrongAnswer(f"its answer is not a CNI result ({_first(error)})") from None
    return AddResult(raw, tuple(one.name for one in found.interfaces if not one.sandbox), addresses)


def read_versions(call: Call) -> tuple[str, ...]:
    """Return the versions that a plugin supports, by its answer to VERSION. Raises WrongAnswer."""
    try:
        return _Versions.model_validate(_json_of(call)).supported
    except ValidationError as error:
        raise WrongAnswer(f"its answer has no supportedVersions ({_first(error)})") from None


def code_of(call: Call) -> int | None:
    """Return the code of the error that a plugin printed; None without one."""
    error = _error_of(call)
    return None if error is None else error.code


def _error_of(call: Call) -> _Error | None:
    for text in (call.stdout, call.stderr):
        with contextlib.suppress(ValueError, RecursionError):
            return _Error.model_validate(json.loads(text))
    return None


def why_failed(call: Call) -> str:
    """Return a plugin's error as it comes: code, message and details, else its last words."""
    if call.failure:
        return call.failure
    if (error := _error_of(call)) is not None:
        return f"code {error.code}: {error.msg}{f'; {error.details}' if error.details else ''}"
    said = (call.stderr.strip() or call.stdout.strip()).splitlines()
    return f"exit code {call.exit_code}, and no CNI error ({said[-1][:SHOWN] if said else 'it printed nothing'})"


def _json_of(call: Call) -> Mapping[str, Any]:
    try:
        found = json.loads(call.stdout)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        got = " ".join(call.stdout.split())[:SHOWN] or "nothing"
        raise WrongAnswer(f"exit code 0, but its answer is not JSON (got {got})")
    return found


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        one = error.errors()[0]
        return f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}"
    return str(error)
