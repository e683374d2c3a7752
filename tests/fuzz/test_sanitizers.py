"""The native data path under AddressSanitizer and UndefinedBehaviorSanitizer: tests' packets, and a fuzzer's.

The fuzzers run beside all other tests (fuzzer.py); here they are waited for.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.datapath.native import build as native_build
from tests.fuzz.fuzzer import SECONDS, TARGETS, Fuzzer

ROOT = Path(__file__).parents[2]
SANITIZE = "-fsanitize=address,undefined"


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


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzer_finds_nothing(target: str, fuzzers: Mapping[str, Fuzzer]) -> None:
    fuzzer = fuzzers[target]
    code = fuzzer.process.wait()
    said = fuzzer.log.read_text()
    assert code == 0, f"{said[-4000:]}\nthe input is in {fuzzer.directory}"
    assert "DONE" in said  # libFuzzer's own summary: it ran, and until its time was over
