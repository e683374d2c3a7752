"""The pure parts of `testbed bench`: steps, metrics, medians, ratios, which rounds count, goals, table rows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.bench.load_tools import processor_seconds
from testbed.bench.plan import BACKENDS, MEASUREMENTS, PATHS, BenchPath, BenchPlan, choose_measurements, choose_paths
from testbed.bench.report import (
    document,
    goal_line,
    median_rows,
    ratio,
    ratio_rows,
    worked,
)
from testbed.bench.results import GOALS, METRICS, Goal, Round, medians, ratios, values_of, verdicts, why_not_counted
from testbed.bench.run import Gathered
from testbed.command import bench_command
from testbed.command.command_line import verbs
from testbed.control.answers.bench import BenchAnswer, BenchFailure, MeasuredMachine, MeasurementAnswer
from tests.waiting import wait_until

TCP = "tcp_1_forward_bits_per_second"
MACHINE: MeasuredMachine = {"processors": 2, "model": "a processor", "kernel": "6.18"}
BY_NAME = {measurement.name: measurement for measurement in MEASUREMENTS}
QUIET = {"python": {TCP: 0.5e9}, "native": {TCP: 5e9}, "vxlan": {TCP: 18e9}}
BUSY = {"python": {TCP: 0.1e9}, "native": {TCP: 1e9}, "vxlan": {TCP: 2e9}}


def rounds_of(*values: dict[str, dict[str, float]]) -> list[Round]:
    return [Round(number, 0.5, one) for number, one in enumerate(values, 1)]


def result_of(rounds: list[Round], *failures: BenchFailure, paths: str = "python,native,vxlan") -> BenchAnswer:
    plan = BenchPlan(choose_paths(paths, ""), len(rounds), 2)
    machine = MACHINE
    return document(plan, Gathered(rounds, list(failures)), machine, "2026-01-01T00:00:00Z", 61.26)


def test_every_round_takes_every_path_once_and_measures_everything_on_it() -> None:
    plan = BenchPlan(tuple(PATHS.values()), rounds=3, seconds=2)
    steps = list(plan.steps())
    for number in (1, 2, 3):
        own = [step for step in steps if step.round == number]
        assert sorted(step.path.name for step in own if step.measurement is None) == sorted(PATHS)
        for path in PATHS.values():
            # Taken first, then measured on, with no other path in between.
            places = [place for place, step in enumerate(own) if step.path == path]
            assert places == list(range(places[0], places[0] + 1 + len(MEASUREMENTS)))
            assert [own[place].measurement for place in places] == [None, *MEASUREMENTS]
    assert [step.round for step in steps] == sorted(step.round for step in steps)


def test_no_path_is_always_first() -> None:
    plan = BenchPlan(tuple(PATHS.values()), rounds=len(PATHS), seconds=1)
    firsts = {next(step.path.name for step in plan.steps() if step.round == number + 1) for number in range(len(PATHS))}
    assert firsts == set(PATHS)


def test_a_run_takes_at_least_its_measurements() -> None:
    plan = BenchPlan(tuple(PATHS.values()), rounds=5, seconds=2)
    assert plan.expected_s > 5 * len(PATHS) * len(MEASUREMENTS) * 2


@pytest.mark.parametrize(
    ("paths", "backends", "names"),
    [
        ("python,native,vxlan,none", "", ["python", "native", "vxlan", "none"]),
        (" none , vxlan ", "", ["none", "vxlan"]),
        ("vxlan", "vxlan,host-gw", ["vxlan", "vxlan-backend", "host-gw-backend"]),
        ("", "udp", ["udp-backend"]),
    ],
)
def test_paths_come_in_the_order_in_which_they_are_named(paths: str, backends: str, names: list[str]) -> None:
    assert [path.name for path in choose_paths(paths, backends)] == names


@pytest.mark.parametrize(
    ("paths", "backends", "complaint"),
    [
        ("pyhton", "", "no such path (got pyhton; want some of python,native,kernel,vxlan,none,host-gw)"),
        ("none", "gre", "no such backend (got gre; want some of udp,vxlan,host-gw,ipip,wireguard)"),
        ("none,none", "", "named twice: none"),
        ("", "", "no path (want one or more of python, native, kernel, vxlan, none, host-gw, or --backends)"),
    ],
)
def test_wrong_names_are_refused_with_a_reason(paths: str, backends: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        choose_paths(paths, backends)


def test_single_measurements_and_kinds_can_be_chosen() -> None:
    assert choose_measurements("") == MEASUREMENTS
    assert [one.name for one in choose_measurements("latency,udp_16")] == ["udp_16", "latency"]
    assert [one.name for one in choose_measurements("udp")] == ["udp_16", "udp_1400"]
    with pytest.raises(ValueError, match=r"^no such measurement \(got sctp; want some of tcp,udp,"):
        choose_measurements("sctp")


def test_a_run_without_the_yardstick_s_measurements_counts_and_shows_only_what_was_asked_for() -> None:
    plan = BenchPlan(choose_paths("python,native", ""), 1, 1, choose_measurements("latency"))
    rounds = rounds_of({"python": {"latency_p50_us": 50.0}, "native": {"latency_p50_us": 20.0}})
    result = document(plan, Gathered(rounds), MACHINE, "2026-01-01T00:00:00Z", 9.0)
    assert result["rounds_counted"] == 1
    assert [row[0] for row in median_rows(result)] == ["TCP ping-pong, p50", "TCP ping-pong, p99"]


def test_throughput_and_processor_time_per_gigabyte() -> None:
    raw: MeasurementAnswer = {"bytes": 2_000_000_000, "seconds": 4.0, "agents_cpu_s": 3.0}
    assert values_of(BY_NAME["tcp_1_forward"], raw) == {TCP: 4e9, "agents_cpu_seconds_per_gigabyte": 1.5}
    assert values_of(BY_NAME["tcp_4_reverse"], raw) == {"tcp_4_reverse_bits_per_second": 4e9}


def test_received_rate_loss_and_processor_time_per_million_packets() -> None:
    raw: MeasurementAnswer = {"sent": 400_000, "received": 100_000, "seconds": 2.0, "agents_cpu_s": 1.0}
    assert values_of(BY_NAME["udp_16"], raw) == {
        "udp_16_packets_per_second": 50_000,
        "udp_16_lost_percent": 75,
        "agents_cpu_seconds_per_million_packets": 10,
    }


def test_a_path_without_agents_has_no_processor_time_and_nothing_received_no_division_by_zero() -> None:
    raw: MeasurementAnswer = {"sent": 0, "received": 0, "seconds": 2.0, "agents_cpu_s": None}
    assert values_of(BY_NAME["udp_16"], raw) == {"udp_16_packets_per_second": 0, "udp_16_lost_percent": 0}
    raw["agents_cpu_s"] = 1.0
    assert "agents_cpu_seconds_per_million_packets" not in values_of(BY_NAME["udp_16"], raw)


def test_every_metric_of_every_measurement_is_described() -> None:
    raws: dict[str, MeasurementAnswer] = {
        "tcp": {"bytes": 1, "seconds": 1.0},
        "udp": {"sent": 1, "received": 1, "seconds": 1.0},
        "latency": {"p50_us": 1.0, "p99_us": 2.0},
    }
    found = {
        metric
        for measurement in MEASUREMENTS
        for metric in values_of(measurement, {**raws[measurement.kind], "agents_cpu_s": 1.0})
    }
    assert found == {metric.name for metric in METRICS}


def test_medians_are_of_the_rounds_that_have_the_value() -> None:
    rounds = rounds_of({"native": {TCP: 1.0}}, {"native": {TCP: 9.0}}, {"native": {}}, {"native": {TCP: 2.0}})
    assert medians(rounds) == {"native": {TCP: 2.0}}


def test_ratios_leave_out_values_without_a_reference_or_a_meaning() -> None:
    of = {
        "native": {TCP: 5.0, "udp_16_lost_percent": 20.0, "latency_p50_us": 15.0},
        "vxlan": {TCP: 20.0, "udp_16_lost_percent": 10.0, "latency_p50_us": 0.0},
    }
    assert ratios(of, "vxlan") == {"native": {TCP: 0.25}, "vxlan": {TCP: 1.0}}
    assert ratios(of, "python") == {}


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        (QUIET, True),
        (BUSY, False),
        ({"python": {TCP: 0.1e9, "tcp_1_reverse_bits_per_second": 0.4e9}}, True),
        ({"python": {}, "native": {TCP: 5e9}}, False),
        ({"native": {TCP: 1.0}}, True),
    ],
    ids=["quiet", "busy", "one-direction-suffices", "python-gave-nothing", "python-not-asked-for"],
)
def test_a_round_counts_when_python_was_not_kept_from_its_processor(
    values: dict[str, dict[str, float]], counts: bool
) -> None:
    reason = why_not_counted(Round(1, 0.5, values))
    assert (reason is None) == counts


def test_a_round_that_does_not_count_changes_no_median() -> None:
    result = result_of(rounds_of(QUIET, BUSY, QUIET))
    assert result["rounds_counted"] == 2
    assert result["medians"]["native"][TCP] == 5e9
    assert [one["counts"] for one in result["rounds"]] == [True, False, True]
    assert result["rounds"][1]["why_not"] == (
        "python reached 0.10 Gbit/s with one TCP stream, below 0.4: the machine was busy"
    )
    assert worked(result)


def test_without_a_round_that_counts_no_goal_is_judged() -> None:
    result = result_of(rounds_of(BUSY))
    assert result["rounds_counted"] == 0
    assert result["medians"]["native"][TCP] == 1e9  # of what there is
    assert result["goals"] == []
    assert not worked(result)


def test_goals_are_judged_at_their_very_limit() -> None:
    of = {"native": {TCP: 4.0, "latency_p50_us": 13.0}, "vxlan": {TCP: 16.0, "latency_p50_us": 10.0}}
    assert [(one.goal.metric, one.reached) for one in verdicts(of)] == [(TCP, True), ("latency_p50_us", True)]
    of["native"] = {TCP: 3.9, "latency_p50_us": 13.1}
    assert [one.reached for one in verdicts(of)] == [False, False]


def test_every_goal_is_about_a_path_and_a_metric_that_exist() -> None:
    comparable = {metric.name for metric in METRICS if metric.compared}
    paths = {*PATHS, *(path.name for path in choose_paths("", ",".join(BACKENDS)))}
    assert all({goal.path, goal.reference} <= paths and goal.metric in comparable for goal in GOALS)
    assert Goal("native", TCP, "python", 8, at_least=True) in GOALS


def test_goals_as_text() -> None:
    lines = [goal_line(goal) for goal in result_of(rounds_of(QUIET))["goals"]]
    assert lines == [
        "reached  native, TCP, 1 stream, forward: 0.28 × vxlan (want >= 0.25)",  # noqa: RUF001 - the sign that is meant
        "reached  native, TCP, 1 stream, forward: 10.0 × python (want >= 8)",  # noqa: RUF001 - the same
    ]


def test_table_rows_have_a_cell_for_every_path() -> None:
    result = result_of(rounds_of(QUIET))
    rows = {row[0]: row[1:] for row in median_rows(result)}
    assert rows["TCP, 1 stream, forward"] == ("Gbit/s", "0.50", "5.00", "18.00")
    assert rows["UDP, 16 B, lost"] == ("%", "-", "-", "-")
    (compared,) = ratio_rows(result, "python")
    assert [cell.split()[0] for cell in compared[1:]] == ["1.00", "10.0", "36.0"]


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0312, "0.031"), (0.28, "0.28"), (9.5, "9.50"), (36, "36.0")]
)
def test_ratios_have_the_digits_that_mean_something(value: float | None, shown: str) -> None:
    assert ratio(value).split()[0] == shown


def test_a_measurement_that_gave_nothing_in_any_round_makes_the_run_fail() -> None:
    failure = BenchFailure(round=1, path="native", measurement="udp_16", error="iperf3: unable to receive results")
    assert not worked(result_of(rounds_of(QUIET, QUIET), failure))
    with_value = {**QUIET, "native": {TCP: 5e9, "udp_16_packets_per_second": 1.0}}
    assert worked(result_of(rounds_of(QUIET, with_value), failure))


def test_a_path_that_gave_nothing_at_all_makes_the_run_fail() -> None:
    failure = BenchFailure(round=1, path="native", measurement="latency", error="sockperf: no output")
    assert not worked(result_of(rounds_of({**QUIET, "native": {}}), failure))


def test_processor_time_of_other_processes_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "sum(range(10**7)); input()"], stdin=subprocess.PIPE) as busy:
        wait_until(lambda: processor_seconds([busy.pid]) > 0.05, timeout_s=30, what="it has used the processor")
        assert processor_seconds([busy.pid, busy.pid]) >= 2 * 0.05
        busy.kill()
    with pytest.raises(ProcessLookupError, match=f"process {busy.pid}"):
        processor_seconds([busy.pid])
    assert processor_seconds([]) == 0


def test_the_result_is_json_and_names_its_paths() -> None:
    result = json.loads(json.dumps(result_of(rounds_of(QUIET, BUSY))))
    assert result["paths"][0] == {"name": "python", "description": "udp backend, one packet per system call"}
    assert result["took_s"] == 61.3
    assert BenchPath("native", "udp backend, packets in bulk", "udp", "native") == PATHS["native"]


@pytest.mark.parametrize("words", [(), ("-o", "json")])
def test_a_result_is_printed_although_its_picture_cannot_be_drawn(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    assert bench_command.bench.name in verbs.commands
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("testbed.bench.session.run", lambda _plan: result_of(rounds_of(QUIET)))
    monkeypatch.setattr("testbed.bench.plot.draw", refuse)
    done = CliRunner().invoke(verbs, ["bench", "--plot", str(tmp_path / "bench.png"), *words], standalone_mode=False)
    assert "No space left" in str(done.exception)
    assert MACHINE["kernel"] in done.output
    assert "drawn" not in done.output
