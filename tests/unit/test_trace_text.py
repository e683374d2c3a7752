"""A trace as people read it: at 80 columns nothing of a hop is lost, and reasons can be left out."""

import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from testbed.control.answers.trace import HopPacket, TraceAnswer, TraceLoss
from testbed.output import trace_text
from tests.traces import recorded

WIDTH = 80
BACKENDS = ("udp", "vxlan", "host-gw", "wireguard")
LONG_NAME = "a-pod-with-a-name-as-long-as-kubernetes-takes-it-and-not-longer"
LONG_ADDRESS = "fd00:aaaa:bbbb:cccc:1111:2222:3333:4444"


def trace(backend: str) -> TraceAnswer:
    return cast(TraceAnswer, recorded(backend)["trace"])


def with_long_names(answer: TraceAnswer) -> TraceAnswer:
    """Return the same between pods with the longest names and addresses."""
    found = copy.deepcopy(answer)
    found["probe"] |= {"from": LONG_NAME, "to": LONG_NAME}
    for hop in found["hops"]:
        hop["where"] = hop["where"].replace("nginx ", f"{LONG_NAME} ").replace("tomcat ", f"{LONG_NAME} ")
        hop["why"] = hop["why"].replace("nginx", LONG_NAME).replace("10.0.46.2", LONG_ADDRESS)
        for packet in packets(hop["inner"], hop["outer"]):
            packet["src"] = packet["dst"] = LONG_ADDRESS
    return found


def packets(*found: HopPacket | None) -> Iterator[HopPacket]:
    yield from (packet for packet in found if packet is not None)


def shown(
    answer: TraceAnswer,
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    with_why: bool = True,
) -> list[str]:
    monkeypatch.setattr(trace_text, "screen_width", lambda: width)
    trace_text.show(answer, with_why=with_why)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("make", [trace, lambda backend: with_long_names(trace(backend))], ids=["as it is", "long"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_80_columns_have_room_for_every_hop(
    backend: str,
    make: Callable[[str], TraceAnswer],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = make(backend)
    lines = shown(answer, WIDTH, capsys, monkeypatch)
    assert max(map(len, lines)) <= WIDTH, "\n".join(lines)
    piped = shown(answer, sys.maxsize, capsys, monkeypatch)
    assert Counter(" ".join(lines).split()) == Counter(" ".join(piped).split())
    for hop in answer["hops"]:
        assert [line for line in piped if line.startswith(f"{hop['number']:>2}  ")], hop
        assert f"    {hop['why']}" in piped


def test_a_hop_is_its_place_its_addresses_and_its_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(trace("udp"), WIDTH, capsys, monkeypatch)
    assert lines[:6] == [
        "nginx → tomcat: TCP connection 10.0.46.2:34575 → 10.0.90.2:8080",
        "",
        "request: tcp SYN",
        " 1    0 µs  nginx eth0 out        ttl 64  mtu 1472",
        "    10.0.46.2:34575 → 10.0.90.2:8080",
        "    nginx sends it; route default via 10.0.46.1 dev eth0",
    ]
    fifth = lines.index(" 5  274 µs  node1 uplink out      ttl 63  mtu 1500")
    assert lines[fifth + 1 : fifth + 3] == [
        "    [192.168.8.227 → 192.168.8.228 udp 8285] 10.0.46.2:34575 → 10.0.90.2:8080",
        "    lease 10.0.90.0/24 → 192.168.8.228:8285; route 192.168.8.0/24 dev node1-eth0",
    ]
    assert lines[-1] == "outcome: answered in 484 µs"


def test_without_reasons_a_hop_is_two_lines_and_a_loss_is_not_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = trace("udp")
    del answer["hops"][4:]
    answer["outcome"] = "lost"
    answer["reasons"] = ["a packet filter of node1 drops it", "meanwhile counters of node1 moved"]
    answer["lost_at"] = TraceLoss(
        where="node1 flannel0", node="node1", interface="flannel0", direction="out", leg="request", reason=None
    )
    lines = shown(answer, WIDTH, capsys, monkeypatch, with_why=False)
    assert lines[3:-3] == [
        "1   0 µs  nginx eth0 out      ttl 64  mtu 1472",
        "   10.0.46.2:34575 → 10.0.90.2:8080",
        "2   5 µs  node1 vethnginx in  ttl 64  mtu 1472",
        "   10.0.46.2:34575 → 10.0.90.2:8080",
        "3  37 µs  node1 docker0 in    ttl 64  mtu 1472",
        "   10.0.46.2:34575 → 10.0.90.2:8080",
        "4  48 µs  node1 flannel0 out  ttl 63  mtu 1472",
        "   10.0.46.2:34575 → 10.0.90.2:8080",
    ]
    assert lines[-3:] == ["", "outcome: it did not arrive", "last seen: node1 flannel0, out"]
    explained = shown(answer, WIDTH, capsys, monkeypatch)
    assert explained[-2:] == ["why: a packet filter of node1 drops it", "     meanwhile counters of node1 moved"]


def test_steps_show_one_hop_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_text, "screen_width", lambda: WIDTH)
    seen: list[str] = []

    def key() -> bool:
        seen.append(capsys.readouterr().out)
        return len(seen) < 3

    trace_text.show(trace("udp"), key)
    assert seen[0].endswith("nginx sends it; route default via 10.0.46.1 dev eth0\n")
    assert [len(part.splitlines()) for part in seen] == [6, 3, 3]
    assert capsys.readouterr().out.endswith("outcome: answered in 484 µs\n")
