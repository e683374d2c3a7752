"""The arguments of `-f`: files, standard input, directories and web addresses, as in kubectl."""

import os
import sys
from collections.abc import Iterator, Sequence

from testbed.errors import InvalidInput
from testbed.plain_files import MAX_BYTES

SUFFIXES = (".json", ".yaml", ".yml")
STANDARD_INPUT = "-"
URLS = ("http://", "https://")
FETCH_TIMEOUT_S = 20.0
"""Limit for an answer, and for each further part of it."""


def read_files(names: Sequence[str], *, recursive: bool) -> dict[str, bytes]:
    """Return the content of each file, in order; for a directory, of its manifests, by name. Raises InvalidInput."""
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    for name in names:
        try:
            for file in _files_of(name, recursive=recursive):
                if file not in contents:
                    contents[file] = _read(file)
        except InvalidInput as problem:
            problems.append(str(problem))
    if problems:
        raise InvalidInput("\n".join(problems))
    return contents


def _files_of(name: str, *, recursive: bool) -> Sequence[str]:
    if name == STANDARD_INPUT or name.startswith(URLS) or not os.path.isdir(name):
        return [name]
    found = list(_manifests_in(name, recursive=recursive))
    if not found:
        deeper = "" if recursive else ", or -R for directories below it"
        raise InvalidInput(f"{name}: holds no manifests (want files that end in {', '.join(SUFFIXES)}{deeper})")
    return found


def _manifests_in(directory: str, *, recursive: bool) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(directory, error) from error
    for path in (os.path.join(directory, name) for name in names):
        if os.path.isdir(path):
            # A link to a directory may form a cycle.
            if recursive and not os.path.islink(path):
                yield from _manifests_in(path, recursive=True)
        elif path.endswith(SUFFIXES):
            yield path


def _read(name: str) -> bytes:
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    if name.startswith(URLS):
        return _fetch(name)
    try:
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(name, error) from error


def _fetch(url: str) -> bytes:
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
            return data
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InvalidInput(f"{url}: cannot be fetched (got {reason}; want a file of manifests there)") from error


def _unreadable(name: str, error: OSError) -> InvalidInput:
    return InvalidInput(f"{name}: cannot be read (got {error.strerror}; want a file of manifests)")
