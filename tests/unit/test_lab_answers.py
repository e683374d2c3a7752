"""How answers of a lab are read, and what their failures say."""

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.control.answers.lab import PingAnswer
from testbed.control.client import LabRecord
from testbed.control.questions import FAULT, Question
from testbed.faults import etcd_faults
from testbed.testing import lab_handle
from testbed.testing.lab_answers import SEPARATOR, CommandFailed, Ping, Response, Result, response_of
from testbed.testing.lab_handle import LabHandle, metrics_of

FACTS = {"http_code": 200, "remote_ip": "10.0.90.2", "local_ip": "10.0.46.3", "time_total": 0.01, "errormsg": None}


def result(stdout: str = "", stderr: str = "", exit_code: int = 0) -> Result:
    return Result("client", ("curl", "http://x/"), stdout, stderr, exit_code)


def answered(stdout: str, facts: dict[str, object], messages: str = "", exit_code: int = 0) -> Response:
    headers = json.dumps({"Content-Type": ["text/html"], "set-cookie": ["a=1", "b=2"]})
    report = f"{messages}{SEPARATOR}{json.dumps(facts)}{SEPARATOR}{headers}"
    return response_of("http://x/", result(stdout, report, exit_code))


def test_response_has_status_body_headers_and_both_addresses() -> None:
    response = answered("hello\n", dict(FACTS))
    assert (response.status, response.body, response.error) == (200, "hello\n", None)
    assert response.headers == {"content-type": "text/html", "set-cookie": "a=1, b=2"}
    assert (response.remote_address, response.local_address) == ("10.0.90.2", "10.0.46.3")


def test_request_without_an_answer_has_status_0_and_curls_message() -> None:
    facts = {**FACTS, "http_code": 0, "remote_ip": ""}
    response = answered("", facts, "curl: (7) Failed to connect\n", 7)
    assert (response.status, response.error, response.remote_address) == (0, "curl: (7) Failed to connect", None)


def test_curl_that_could_not_run_is_an_error_too() -> None:
    assert response_of("http://x/", result("", "curl: not found\n", 127)).error == "curl: not found"
    assert response_of("http://x/", result("", "", 137)).error == "curl ended with 137"


def test_check_returns_the_output_or_reports_everything() -> None:
    assert result("out").check() == "out"
    with pytest.raises(CommandFailed, match=r"client: curl http://x/: exit code 3\nstdout: out\nstderr: err"):
        result("out", "err", 3).check()


def test_ping_counts_what_was_lost() -> None:
    pair: PingAnswer = {
        "source": "a",
        "destination": "b",
        "address": "10.0.1.2",
        "sent": 3,
        "received": 1,
        "ttl": 62,
        "rtt_ms": [0.5],
        "error": None,
        "skipped": None,
    }
    ping = Ping.from_json(pair)
    assert (ping.lost, ping.ttl, ping.rtt_ms) == (2, 62, (0.5,))
    assert Ping.from_json({**pair, "skipped": "terminated meanwhile: b"}).lost == 0


def test_metrics_are_numbers_by_name_and_labels() -> None:
    lines = ["# HELP x y", 'drops{reason="a b"} 3', "", "peers 1.5"]
    assert metrics_of(lines) == {'drops{reason="a b"}': 3.0, "peers": 1.5}


def test_an_injection_has_the_time_that_the_slowest_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []

    def answer(
        _lab: object, question: Question[Any], *_: object, answer_within_s: float, **_arguments: object
    ) -> object:
        asked.append((question.name, answer_within_s))
        return {"number": 1} if question is FAULT else []

    monkeypatch.setattr(lab_handle, "ask", answer)
    with LabHandle(LabRecord("one", 0, 0, tmp_path, 0)).fault("etcd quota etcd1"):
        pass
    slowest_s = 4 * etcd_faults.ANSWER_LIMIT_S
    assert [within_s > slowest_s for name, within_s in asked if name == FAULT.name] == [True]
