"""native.c under AddressSanitizer and UndefinedBehaviorSanitizer: with the tests' packets, and with a fuzzer's.

TESTBED_FUZZ_SECONDS says how long each of the two fuzzers runs; the corpus beside this file is where they begin.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.datapath import native_build

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SECONDS = int(os.environ.get("TESTBED_FUZZ_SECONDS", "30"))
LONGEST_INPUT = 8192
SANITIZE = "-fsanitize=address,undefined"
TARGETS = {"receive": [], "tun": ["-DTUN_PATH"]}


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
def test_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("no clang (want scripts/install --tests)")
    program = tmp_path / target
    options = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", *TARGETS[target]]
    include = ["-I", str(native_build.SOURCE.parent)]
    subprocess.run(["clang", *options, *include, str(HERE / "fuzz_native.c"), "-o", str(program)], check=True)
    found = tmp_path / "found"
    found.mkdir()
    limits = [f"-max_total_time={SECONDS}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={tmp_path}/"]
    command = [str(program), *limits, str(found), str(HERE / "corpus" / target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stderr[-4000:]}\nthe input is in {tmp_path}"
