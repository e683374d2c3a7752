"""The files that `cni:` of a cluster file names: read, and checked before a lab starts."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from testbed.cluster.cluster_document import CniSpec
from testbed.cni.call import find_program
from testbed.cni.conflist import Conflist, WrongConflist, read_conflist

LARGEST_BYTES = 1_000_000
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def load_conflist(path: str) -> Conflist:
    """Read the file. Raises WrongConflist with one line, which names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return read_conflist(file.read(LARGEST_BYTES))
    except OSError as error:
        raise WrongConflist(f"{path}: cannot be read ({error.strerror})") from None
    except (WrongConflist, UnicodeDecodeError) as error:
        raise WrongConflist(f"{path}: {error}") from None


def bridge_of(spec: CniSpec) -> str | None:
    """Return the bridge that these plugins make; None if there is none, or the file is wrong."""
    try:
        return load_conflist(spec.conflist).bridge
    except WrongConflist:
        return None


def wrong_files(spec: CniSpec, *, as_root: bool) -> Iterator[str]:
    """Yield what is wrong with the files, one line each; `as_root`: plugins will run as root."""
    for directory in spec.plugins:
        if not os.path.isdir(directory):
            yield f"plugins: no such directory (got {directory}; want one with the plugins, such as /usr/lib/cni)"
        elif as_root and (what := _writable(directory)) is not None:
            yield f"plugins: others may write it, and root would run it (got {what}; want chmod go-w {what})"
    if as_root and os.path.exists(spec.conflist) and (what := _writable(spec.conflist)) is not None:
        yield f"conflist: others may write it, and root would follow it (got {what}; want chmod go-w {what})"
    try:
        conflist = load_conflist(spec.conflist)
    except WrongConflist as error:
        yield f"conflist: {error}"
        return
    for plugin in conflist.plugins:
        program = find_program(plugin.type, spec.plugins)
        if program is None:
            yield f"plugins: no such plugin (got {plugin.type}; want a program in {', '.join(spec.plugins)})"
        elif not os.access(program, os.X_OK):
            yield f"plugins: not executable (got {program}; want chmod +x)"
        elif as_root and (what := _writable(program)) is not None:
            yield f"plugins: others may write it, and root would run it (got {what}; want chmod go-w {what})"


def _writable(path: str) -> str | None:
    """Return the file or its directory if users besides its owner may replace it."""
    whole = Path(path).resolve()
    for one in (whole, whole.parent):
        mode = os.stat(one).st_mode
        if mode & WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
            return str(one)
    return None
