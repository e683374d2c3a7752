"""The packages as users get them: a wheel of the clone, unpacked in a directory of its own and run from there.

scripts/try-wheel does the same on a bare machine, with dependencies from the package index.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Environment, run_verb
from tests.e2e.lab import Lab, fresh_name

ROOT = Path(__file__).parents[2]
BUILD_LIMIT_S = 100


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    made = "__pycache__", "*.so", "pause", "_native_abi.py", ".*"
    for name in ("agent", "testbed", "topologies"):
        shutil.copytree(ROOT / name, directory / "source" / name, ignore=shutil.ignore_patterns(*made))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, directory / "source" / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory))
    command = [sys.executable, "-m", "pip", "wheel", *options, str(directory / "source")]
    subprocess.run(command, check=True, timeout=BUILD_LIMIT_S)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def packages(wheel: Path) -> Path:
    directory = wheel.parent / "site-packages"
    options = ("--quiet", "--no-deps", "--no-index", "--root-user-action=ignore", "--target", str(directory))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True, timeout=BUILD_LIMIT_S)
    return directory


@pytest.fixture
def from_wheel(packages: Path) -> Environment:
    """Return the variables with which a verb runs from the wheel instead of the clone."""
    return {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def lab_from_wheel(from_wheel: Environment) -> Iterator[Lab]:
    lab = Lab(fresh_name("wheel"))
    yield lab
    run_verb("down", "--lab", lab.name, extra=from_wheel)


def test_it_brings_two_top_level_packages_and_everything_that_a_lab_reads(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"agent", "testbed"}
    wanted = {f"testbed/topologies/{path.name}" for path in (ROOT / "topologies").glob("*.*")}
    wanted |= {f"testbed/ui/{path.name}" for path in (ROOT / "testbed/ui").glob("*.*")}
    wanted |= {"testbed/pods/bin/pause", "testbed/faults/bin/monotonic_sleep.so", "agent/datapath/native/_native.so"}
    wanted |= {"agent/datapath/native/_native_abi.py", "agent/py.typed", "testbed/py.typed"}
    assert wanted - set(names) == set()


def test_it_is_for_every_python_and_one_processor(wheel: Path) -> None:
    assert "-py3-none-linux_" in wheel.name


def test_a_lab_runs_from_it(lab_from_wheel: Lab, from_wheel: Environment, packages: Path) -> None:
    name = lab_from_wheel.name
    up = run_verb("up", "two_nodes", "--lab", name, extra=from_wheel)
    assert up.code == 0, up
    status = run_verb("status", "--lab", name, "-o", "json", extra=from_wheel).json
    assert {node["datapath"] for node in status["nodes"]} == {"native"}
    assert str(packages) in Path(f"/proc/{status['pid']}/cmdline").read_text()
    ping = run_verb("ping", "shell1", "echo2", "--lab", name, extra=from_wheel)
    assert ping.code == 0, ping


def test_the_topologies_in_it_can_be_named(from_wheel: Environment) -> None:
    answer = run_verb("topologies", "-o", "json", extra=from_wheel).json
    assert {"nginx_tomcat", "two_nodes"} <= {row["name"] for row in answer["clusters"]}
    assert "tree" in {row["name"] for row in answer["topologies"]}


def test_doctor_finds_its_packages_and_compiled_parts(from_wheel: Environment, packages: Path) -> None:
    found = {check["name"]: check for check in run_verb("doctor", "-o", "json", extra=from_wheel).json}
    assert found["pause"]["found"] == f"{packages}/testbed/pods/bin/pause"
    assert found["Python packages"]["ok"]


@pytest.mark.parametrize("words", [["up"], ["--version"], ["ping"]])
def test_the_testbed_without_its_extra_fails_with_one_line(packages: Path, words: list[str]) -> None:
    alone = f"import sys; sys.path.insert(0, {str(packages)!r}); import testbed.__main__"
    command = [sys.executable, "-S", "-P", "-c", alone, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    missing = "error: testbed: Python package click is missing (want: pip install 'overlay-testbed[lab]')\n"
    assert done.stderr == missing


def test_the_pytest_plugin_needs_nothing_of_the_extra(packages: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(packages)!r}); before = set(sys.modules); import testbed.pytest_plugin\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    command = [sys.executable, "-P", "-c", f"import pytest; {code}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=True)
    assert done.stdout == "testbed\n"
