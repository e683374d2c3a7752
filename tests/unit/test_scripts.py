"""Scripts of the clone start as documented: with the machine's own Python, and from any directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BARE_PYTHON = [str(Path(sys.base_prefix) / "bin" / "python3"), "-S"]
"""Without any package but the standard library, as on a machine where only the clone was installed."""


@pytest.mark.parametrize(
    ("script", "words", "exit_code", "said"),
    [
        ("measure-api", ("a", "b"), 2, "error: scripts/measure-api: wrong arguments (got a b; want [CHANGES])"),
        ("measure-services", ("0",), 2, "error: scripts/measure-services: wrong arguments (got 0; want [CHANGES])"),
        ("judge-manifests", (), 2, "judge-manifests: error: the following arguments are required: clones"),
    ],
)
def test_a_script_finds_the_clones_packages(
    script: str, words: tuple[str, ...], exit_code: int, said: str, tmp_path: Path
) -> None:
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("the clone has no .venv")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # Root must leave nothing in its owner's clone.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [*BARE_PYTHON, str(ROOT / "scripts" / script), *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (exit_code, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_measurement_that_a_signal_ends_takes_its_lab_down(number: signal.Signals, tmp_path: Path) -> None:
    python, said = tmp_path / "python", tmp_path / "said"
    python.write_text(f'#!/bin/sh\necho "$*" > {said}\n')
    python.chmod(0o755)
    program = (
        f"import measuring, signal, time; measuring.PYTHON = {str(python)!r}\n"
        # We may run by `nohup`, as a user may.
        "for one in measuring.ENDING: signal.signal(one, signal.SIG_DFL)\n"
        "with measuring.taken_down():\n print('up', flush=True)\n while True: time.sleep(0.05)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as measuring:
        try:
            assert measuring.stdout is not None
            assert measuring.stdout.readline() == "up\n"
            measuring.send_signal(number)
            assert measuring.wait(20) == 128 + number
        finally:
            measuring.kill()
    assert said.read_text().startswith("-m testbed down --lab ")


def test_the_report_of_ci_by_vagrant_goes_to_a_directory_relative_to_the_callers(tmp_path: Path) -> None:
    vagrant = tmp_path / "bin" / "vagrant"
    vagrant.parent.mkdir()
    vagrant.write_text('#!/bin/sh\ncase "$*" in *report.xml) echo "<testsuite/>" ;; *) echo "$*" ;; esac\n')
    vagrant.chmod(0o755)
    (tmp_path / "reports").mkdir()
    environment = {**os.environ, "PATH": f"{vagrant.parent}:{os.environ['PATH']}"}
    command = [str(ROOT / "scripts" / "ci-vagrant"), "reports"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "report.xml").read_text() == "<testsuite/>\n"
    assert (tmp_path / "reports" / "run.log").exists()
