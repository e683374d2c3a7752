"""A trace on a terminal: a heading for each leg; for each hop its place, addresses and reason."""

import contextlib
import os
import termios
import tty
from collections.abc import Callable, Iterator, Mapping

from testbed.control.answers.trace import HopPacket, Leg, Outcome, TraceAnswer, TraceHop
from testbed.output.layout import wrap
from testbed.output.standard_streams import screen_width

LEGS: Mapping[Leg, str] = {
    "request": "request",
    "data": "payload",
    "reply": "reply",
    "error": "error about the request",
    "reply error": "error about the reply",
}
GAP = 2
WHY = "why: "
WIDEST_PLACE = 30
"""Columns; after a longer one the line continues without a gap."""
OUTCOMES: Mapping[Outcome, str] = {
    "answered": "answered",
    "refused": "it arrived and was refused: nothing listens there",
    "unreachable": "it did not arrive, and the sender got an ICMP error or a TCP reset",
    "lost": "it did not arrive",
    "unanswered": "it arrived; no reply was sent",
    "reply lost": "it arrived; the reply did not come back",
    "data lost": "connected, but the payload was not confirmed",
    "not sent": "it was not sent",
}


def show(answer: TraceAnswer, wait: Callable[[], bool] | None = None, *, with_why: bool = True) -> None:
    """Print the whole trace.

    `wait` is called before every hop but the first, until it returns False. Without `with_why`, omit the reasons of
    hops and of a loss, which a class should find.
    """
    width = screen_width()
    _print(headline(answer), width)
    margin = len(str(len(answer["hops"]))) + GAP
    times = max((len(_time(hop)) for hop in answer["hops"]), default=0)
    places = max((min(len(_place(hop)), WIDEST_PLACE) for hop in answer["hops"]), default=0)
    leg: Leg | None = None
    for hop in answer["hops"]:
        if wait is not None and hop["number"] > 1 and not wait():
            wait = None
        if hop["leg"] != leg:
            leg = hop["leg"]
            print(f"\n{LEGS[leg]}: {hop['inner']['proto']} {hop['inner']['info']}")
        facts = [f"{_time(hop):>{times}}", f"{_place(hop):<{places}}", f"ttl {hop['inner']['ttl']}"]
        if hop["mtu"]:
            facts.append(f"mtu {hop['mtu']}")
        _print(f"{hop['number']:>{margin - GAP}}  {'  '.join(facts)}", width, margin)
        for part in addresses(hop, width - margin):
            _print(" " * margin + part, width, margin)
        if with_why:
            _print(" " * margin + hop["why"], width, margin)
    for line in conclusion(answer, with_why=with_why):
        _print(line, width, len(WHY))


@contextlib.contextmanager
def key_by_key() -> Iterator[Callable[[], bool]]:
    """Return a function that waits for a key, and returns False for q, which prints the rest."""
    former = termios.tcgetattr(0)
    # Once for all keys, and without discarding those pressed meanwhile.
    tty.setcbreak(0, termios.TCSADRAIN)
    try:
        yield lambda: os.read(0, 1) not in (b"q", b"Q", b"")
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, former)


def headline(answer: TraceAnswer) -> str:
    """Describe what was sent, from where to where."""
    return f"{answer['probe']['from']} → {answer['probe']['to']}: {sent_line(answer)}"


def sent_line(answer: TraceAnswer) -> str:
    """Describe the traced packet in a line: kind and addresses."""
    probe = answer["probe"]
    what = {"tcp": "TCP connection", "udp": "UDP datagram", "icmp": "ICMP echo request"}[probe["protocol"]]
    source = _with_port(probe["source"] or probe["from"], probe["source_port"])
    destination = _with_port(probe["destination"], probe["destination_port"])
    return f"{what} {source} → {destination}"


def outcome_line(answer: TraceAnswer) -> str:
    """Describe the result, and how long it took."""
    took = f" in {answer['hops'][-1]['at_us']:.0f} µs" if answer["outcome"] == "answered" and answer["hops"] else ""
    return OUTCOMES[answer["outcome"]] + took


def conclusion(answer: TraceAnswer, *, with_why: bool = True) -> Iterator[str]:
    """Describe the final result."""
    yield ""
    yield f"outcome: {outcome_line(answer)}"
    if answer["lost_at"]:
        lost = answer["lost_at"]
        yield f"last seen: {lost['where']}, {lost['direction']}"
    for number, why in enumerate(answer["reasons"] if with_why else ()):
        yield f"{WHY if number == 0 else ' ' * len(WHY)}{why}"
    for warning in answer["warnings"]:
        yield f"warning: {warning}"
    for hop in answer["strays"]:
        if hop["direction"] == "in":
            yield f"stray copy: {hop['where']} ({hop['why']})"
    for place in answer["unwatched"]:
        yield f"not watched: {place}"


def addresses(hop: TraceHop, width: int) -> list[str]:
    """Return sender and receiver, with the overlay's outer addresses in brackets; two lines if one is too short."""
    inner, outer = _pair(hop["inner"]), hop["outer"]
    if outer is None:
        return [inner]
    around = f"[{_outer(outer)}]"
    return [f"{around} {inner}"] if len(around) + 1 + len(inner) <= width else [around, inner]


def _outer(packet: HopPacket) -> str:
    if packet["sport"] == packet["dport"]:
        port = "" if packet["dport"] is None else f" {packet['dport']}"
        return f"{packet['src']} → {packet['dst']} {packet['proto']}{port}"
    return f"{_pair(packet)} {packet['proto']}"


def _time(hop: TraceHop) -> str:
    return f"{hop['at_us']:.0f} µs"


def _place(hop: TraceHop) -> str:
    return f"{hop['where']} {hop['direction']}"


def _print(line: str, width: int, indent: int = 0) -> None:
    """Print a line, wrapped between words; continuation lines begin at `indent`."""
    if len(line) <= width:
        print(line.rstrip())
        return
    first, *more = wrap(line, width)
    print(first)
    for text in wrap(" ".join(more), width - indent):
        print(" " * indent + text)


def _pair(packet: HopPacket) -> str:
    return f"{_with_port(packet['src'], packet['sport'])} → {_with_port(packet['dst'], packet['dport'])}"


def _with_port(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
