"""Versions of the machine's own programs, from Debian's record of its packages. Read once."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")
_UPSTREAM = re.compile(r"(?:[0-9]+:)?(.+?)(?:-[^-]*)?")


def version_of(packages: Iterable[str]) -> str:
    """Return the upstream version of the first of these packages that is installed; empty if none is."""
    return next((version for package in packages if (version := _version_of(package))), "")


@cache
def _version_of(package: str) -> str:
    found = re.search(
        rf"^Package: {re.escape(package)}\nStatus: \S+ \S+ installed\n(?:.+\n)*?Version: (\S+)$", _status(), re.M
    )
    upstream = _UPSTREAM.fullmatch(found[1]) if found else None
    return re.sub(r"[+~]dfsg.*$", "", upstream[1]) if upstream else ""


@cache
def _status() -> str:
    try:
        return STATUS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
