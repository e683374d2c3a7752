"""Compile the native data path: `python -m agent.datapath.native.build [DIRECTORY [COMPILER ARGUMENT…]]`.

Two files come out, by default beside this one: `_native.so`, plain C without Python, and `_native_abi.py`, which gives
cffi the contents of native.h so that an agent parses nothing at start. Tests build other variants into their own
directories.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cffi

HERE = Path(__file__).parent
SOURCE = HERE / "all.c"
HEADER = HERE / "native.h"
LIBRARY = "_native.so"
INTERFACE = "_native_abi"
COMPILER = "gcc"
OPTIONS = ("-std=c11", "-O3", "-g1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")


def build(directory: Path, more_options: Sequence[str] = ()) -> None:
    """Build both files in `directory`, each whole or not at all. Raises CalledProcessError when compiling fails."""
    unfinished = directory / f"{LIBRARY}.new"
    subprocess.run([COMPILER, *OPTIONS, *more_options, "-o", str(unfinished), str(SOURCE)], check=True)
    interface = cffi.FFI()
    interface.cdef(HEADER.read_text(encoding="utf-8"))
    interface.set_source(INTERFACE, None)
    interface.emit_python_code(str(directory / f"{INTERFACE}.py"))
    unfinished.replace(directory / LIBRARY)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else HERE, sys.argv[2:])
