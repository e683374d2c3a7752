"""What pyproject.toml cannot express: the C parts of the packages, and topologies/ as a part of testbed.

A wheel gets both; an editable install, as scripts/install makes it, gets the C parts in the source tree, and reads
topologies/ where it is. Metadata and dependencies are in pyproject.toml.
"""

import runpy
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).parent
NATIVE = Path("agent/datapath/native")
COMPILED = (  # source, result, options
    (Path("testbed/pods/pause.c"), Path("testbed/pods/bin/pause"), ("-static",)),
    (Path("testbed/faults/monotonic_sleep.c"), Path("testbed/faults/bin/monotonic_sleep.so"), ("-shared", "-fPIC")),
)
OPTIONS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
TOPOLOGIES = Path("topologies")


class BuildWithCompiledParts(build_py):
    """Puts the compiled parts and the topologies next to the Python modules."""

    def run(self) -> None:
        """Build the modules, then the rest."""
        super().run()
        target = ROOT if self.editable_mode else Path(self.build_lib)
        for source, result, options in COMPILED:
            compile_c(ROOT / source, target / result, options)
        (target / NATIVE).mkdir(parents=True, exist_ok=True)
        runpy.run_path(str(ROOT / NATIVE / "build.py"))["build"](target / NATIVE)
        if not self.editable_mode:
            wanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / TOPOLOGIES, target / "testbed" / TOPOLOGIES, ignore=wanted, dirs_exist_ok=True)


def compile_c(source: Path, result: Path, options: tuple[str, ...]) -> None:
    """Compile one C file, whole or not at all: a lab may be running the old one. Raises CalledProcessError."""
    result.parent.mkdir(parents=True, exist_ok=True)
    unfinished = result.with_name(f"{result.name}.new")
    subprocess.run(["gcc", *OPTIONS, *options, "-o", str(unfinished), str(source)], check=True)
    unfinished.replace(result)


class WheelForThisProcessor(bdist_wheel):
    """A wheel for any Python 3, and for one kind of processor."""

    def finalize_options(self) -> None:
        """Declare that there is compiled code, which setuptools did not compile itself."""
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag without Python's version: the compiled parts do not use Python."""
        return ("py3", "none", super().get_tag()[2])


class WithCompiledParts(Distribution):
    """Installed where code for this processor goes."""

    def has_ext_modules(self) -> bool:
        """Return True: there is compiled code."""
        return True


setup(
    distclass=WithCompiledParts,
    cmdclass={"build_py": BuildWithCompiledParts, "bdist_wheel": WheelForThisProcessor},
)
