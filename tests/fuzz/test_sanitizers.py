"""native.c under AddressSanitizer and UndefinedBehaviorSanitizer: with the tests' packets, and with a fuzzer's.

TESTBED_FUZZ_SECONDS says how long the two fuzzers run, both at the same time; the corpus beside this file is where
they begin.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.datapath import native_build

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SECONDS = int(os.environ.get("TESTBED_FUZZ_SECONDS", "30"))
LONGEST_INPUT = 8192
SANITIZE = "-fsanitize=address,undefined"
TARGETS = {"receive": [], "tun": ["-DTUN_PATH"]}


@pytest.mark.slow
def test_packets_of_the_tests_harm_nothing(tmp_path: Path) -> None:
    native_build.build(tmp_path, [SANITIZE, "-fno-sanitize-recover=all"])
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "NATIVE_LIBRARY": str(tmp_path / native_build.LIBRARY),
        "LD_PRELOAD": runtime.strip(),
        # Python keeps memory until it ends; its own blocks would hide an access behind the end of ours.
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    tests = ["tests/unit/test_native.py", "tests/fuzz/test_differential.py"]
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(pytest_run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed" not in result.stdout
    assert " passed" in result.stdout


class Fuzzer:
    """native.c with libFuzzer and sanitizers, running on one of its two paths."""

    def __init__(self, target: str, directory: Path, undo: ExitStack) -> None:
        self.directory = directory
        self.log = directory / "log"
        program = directory / target
        options = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", *TARGETS[target]]
        include = ["-I", str(native_build.SOURCE.parent)]
        subprocess.run(["clang", *options, *include, str(HERE / "fuzz_native.c"), "-o", str(program)], check=True)
        found = directory / "found"
        found.mkdir()
        limits = [f"-max_total_time={SECONDS}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={directory}/"]
        command = [str(program), *limits, str(found), str(HERE / "corpus" / target)]
        with self.log.open("w") as log:
            self.process = undo.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        undo.callback(self.process.kill)


@pytest.fixture(scope="module")
def fuzzers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Fuzzer]]:
    """Both fuzzers, running side by side: each keeps one processor busy for its whole time."""
    if shutil.which("clang") is None:
        pytest.fail("no clang (want scripts/install --tests)")
    with ExitStack() as undo:
        yield {target: Fuzzer(target, tmp_path_factory.mktemp(target), undo) for target in TARGETS}


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzer_finds_nothing(target: str, fuzzers: Mapping[str, Fuzzer]) -> None:
    fuzzer = fuzzers[target]
    code = fuzzer.process.wait()
    said = fuzzer.log.read_text()
    assert code == 0, f"{said[-4000:]}\nthe input is in {fuzzer.directory}"
    assert "DONE" in said  # libFuzzer's own summary: it ran, and until its time was over
