"""The native data path with libFuzzer and sanitizers, running behind all other tests.

TESTBED_FUZZ_SECONDS says how long the two fuzzers run, both at the same time; the corpus beside this file is where
they begin. They take only the processor time that nobody else wants.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.datapath.native import build as native_build

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("TESTBED_FUZZ_SECONDS", "60"))
LONGEST_INPUT = 8192
TARGETS = {"receive": [], "tun": ["-DTUN_PATH"]}


class Fuzzer:
    """One of the native data path's two directions under attack. Fails the test when clang is missing."""

    def __init__(self, target: str, directory: Path, undo: ExitStack) -> None:
        if shutil.which("clang") is None:
            pytest.fail("no clang (want scripts/install --tests)")
        self.directory = directory
        self.log = directory / "log"
        program = directory / target
        options = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", *TARGETS[target]]
        include = ["-I", str(native_build.SOURCE.parent)]
        subprocess.run(["clang", *options, *include, str(HERE / "fuzz_native.c"), "-o", str(program)], check=True)
        found = directory / "found"
        found.mkdir()
        limits = [f"-max_total_time={SECONDS}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={directory}/"]
        command = ["nice", "-n", "19", str(program), *limits, str(found), str(HERE / "corpus" / target)]
        with self.log.open("w") as log:
            self.process = undo.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        undo.callback(self.process.kill)
