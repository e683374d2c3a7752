"""`testbed bench` as a user runs it: real iperf3 and sockperf through every path, in a lab that is gone afterwards."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testbed.bench.results import METRICS
from testbed.control.client import RUN_ROOT, read_record
from tests.e2e.command import Terminal, run_verb, running
from tests.e2e.host import Footprint, footprint
from tests.waiting import wait_until

LIMIT_S = 110.0
"""Of a whole short run, on a machine that does other things too."""
PACKETS_THROUGH_AGENTS = {"agents_cpu_seconds_per_gigabyte", "agents_cpu_seconds_per_million_packets"}
PNG = b"\x89PNG\r\n\x1a\n"


def rate(result: dict[str, Any], path: str) -> float:
    return float(result["medians"][path]["tcp_1_forward_bits_per_second"])


@pytest.mark.slow
def test_every_path_is_measured_in_one_run(tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    answer = run_verb("bench", "--rounds", "1", "--seconds", "1", "--plot", str(picture), "-o", "json", limit_s=LIMIT_S)
    result = answer.json
    # A busy machine is no bug of ours: the run says so and ends with 1.
    assert answer.code == (0 if result["rounds_counted"] else 1), str(answer)
    assert result["failures"] == []
    assert [path["name"] for path in result["paths"]] == ["python", "native", "vxlan", "none"]
    everything = {metric.name for metric in METRICS}
    for path, values in result["medians"].items():
        has = everything if path in ("python", "native") else everything - PACKETS_THROUGH_AGENTS
        assert (path, set(values)) == (path, has)
        assert all(value > 0 for metric, value in values.items() if not metric.endswith("lost_percent"))
        assert result["rounds"][0]["values"][path] == values
    # Each path is the one that it says: Python's pump is slower than C by far, and costs its agents more.
    assert rate(result, "native") > 2 * rate(result, "python")
    assert result["ratios"]["python"]["native"]["agents_cpu_seconds_per_gigabyte"] < 0.5
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.slow
def test_the_result_is_a_table_with_a_column_for_every_path() -> None:
    answer = run_verb(
        "bench", "--paths", "vxlan", "--backends", "vxlan", "--rounds", "1", "--seconds", "1", limit_s=LIMIT_S
    )
    assert answer.code == 0, str(answer)
    heading, *rows = answer.out.splitlines()
    assert heading.split() == ["median", "unit", "vxlan", "vxlan-backend"]
    row = next(row for row in rows if row.strip().startswith("TCP, 1 stream, forward"))
    assert all(float(cell) > 0 for cell in row.split()[-2:])
    assert "compared with vxlan" in answer.out
    assert answer.out.rstrip().splitlines()[-1].strip().startswith("sudo testbed bench")
    assert "round 1 of 1: vxlan " in answer.err


def seen_measuring(process: "subprocess.Popen[bytes]") -> Footprint:
    """Return the lab that the run has made, once a load generator runs in it."""
    name = f"bench-{process.pid}"

    def measuring() -> Footprint | None:
        record = read_record(RUN_ROOT / name)
        if record is None or run_verb("exec", "--lab", name, "node1", "--", "pgrep", "-x", "iperf3").code:
            return None
        return footprint(record.pid)

    found = wait_until(measuring, timeout_s=30, what="iperf3 runs in the lab")
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow)],
)
def test_a_run_that_is_interrupted_leaves_nothing(number: int, code: int) -> None:
    with running("bench", "--paths", "none", "--seconds", "30") as process:
        lab = seen_measuring(process)
        process.send_signal(number)
        assert process.wait(10) == code
        wait_until(lambda: not lab.remains(), timeout_s=5, what="nothing of the lab is left")
        assert read_record(RUN_ROOT / f"bench-{process.pid}") is None


@pytest.mark.slow
def test_a_run_that_is_killed_takes_its_lab_with_it() -> None:
    with running("bench", "--paths", "none", "--seconds", "30") as process:
        lab = seen_measuring(process)
        process.kill()
        process.wait(10)
        wait_until(lambda: not lab.remains(), timeout_s=5, what="nothing of the lab is left")
        # Its directory stays, as any dead lab's, until the next `up` or `down` finds it.
        assert run_verb("down", "--lab", f"bench-{process.pid}").code == 0
        assert read_record(RUN_ROOT / f"bench-{process.pid}") is None


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_the_current_step() -> None:
    with Terminal("bench", "--paths", "none", "--seconds", "30") as terminal:
        terminal.expect("making the lab")
        terminal.expect(r"round 1 of 5 +none +TCP, 1 stream, forward")
        terminal.type("\x03")
        terminal.expect("interrupted: its lab is removed")
        assert terminal.end() == 130


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--paths", "pyhton"], "no such path (got pyhton; want some of python,native,kernel,vxlan,none,host-gw)"),
        (["--plot", "bench.doc"], "--plot: no such format (got bench.doc; want a file .png, .svg, .pdf)"),
        (["--plot", "/no/such/bench.png"], "--plot: no such directory (got /no/such; want one that exists)"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_made(words: list[str], complaint: str) -> None:
    answer = run_verb("bench", *words)
    assert (answer.code, answer.err) == (2, f"error: testbed bench: {complaint}\n")
