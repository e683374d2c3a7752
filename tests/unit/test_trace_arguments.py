"""What is typed behind `testbed trace`."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.capture.headers import NO_OVERLAY
from testbed.capture.map import Map, Place
from testbed.errors import TestbedError
from testbed.trace import run
from testbed.trace.arguments import arguments_of


@pytest.mark.parametrize(
    ("destination", "says"),
    [
        ("fd00:a:0:90::2:80:http", "fd00:a:0:90::2:80:http: not an IPv6 address"),
        ("[tomcat]:80", r"\[tomcat\]:80: not an IPv6 address .got 'tomcat'"),
        ("[fd00::2]:http", r"\[fd00::2\]:http: not a port"),
        ("[fd00::2]:", r"\[fd00::2\]:: not a port"),
        ("tomcat:http", "tomcat:http: not a port"),
        ("tomcat:0", "tomcat:0: not a port"),
        ("tomcat:65536", "tomcat:65536: not a port"),
    ],
)
def test_an_invalid_destination_is_refused_in_one_line(destination: str, says: str) -> None:
    with pytest.raises(TestbedError, match=f"^testbed trace: {says}") as refused:
        arguments_of("client", destination, None)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_port_means_tcp_and_none_an_echo() -> None:
    assert arguments_of("client", "tomcat:8080", None)["protocol"] == "tcp"
    assert arguments_of("client", "10.0.90.2", None)["protocol"] == "icmp"


def test_an_ipv6_address_stands_in_brackets_before_a_port_and_alone() -> None:
    ends = [
        arguments_of("client", text, None) for text in ("[fd00:a:0:90::2]:80", "fd00:a:0:90::2", "[fd00:a:0:90::2]")
    ]
    assert [(one["destination"], one["destination_port"]) for one in ends] == [
        ("fd00:a:0:90::2", 80),
        ("fd00:a:0:90::2", None),
        ("fd00:a:0:90::2", None),
    ]


@pytest.mark.parametrize(
    ("port", "failure", "said"),
    [
        (None, ProcessLookupError("process 5 has ended"), "trace web: process 5 has ended"),
        (80, OSError(98, "Address already in use"), "trace web: source port 80: Address already in use"),
    ],
)
def test_a_packet_that_cannot_be_made_is_reported_with_the_reason(
    port: int | None, failure: OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise failure

    known = Map((Place("web", 5),), {"web": "web"}, {}, {}, NO_OVERLAY, "", frozenset(), {})
    monkeypatch.setattr(run, "map_of", lambda _: known)
    monkeypatch.setattr(run, "TracedPacket", refuse)
    services: Any = SimpleNamespace(numbered={})
    asked = run.TraceRequest("web", "10.0.46.2", "tcp", port, 8080)
    with pytest.raises(TestbedError, match=f"^{said}$"):
        run.trace(cast(Any, None), services, cast(Any, None), asked, lambda _: [], lambda _: False)
