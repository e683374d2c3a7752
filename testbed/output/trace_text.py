"""A trace on a terminal: one block per leg, one line per hop, its reason beside or below it."""

import contextlib
import os
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping

from testbed.control.answers.trace import HopPacket, Leg, Outcome, TraceAnswer, TraceHop

LEGS: Mapping[Leg, str] = {
    "request": "request",
    "data": "payload",
    "reply": "reply",
    "error": "error about the request",
    "reply error": "error about the reply",
}
HEADINGS = ("#", "µs", "where", "", "inner", "ttl", "outer", "mtu", "why")
OUTCOMES: Mapping[Outcome, str] = {
    "answered": "answered",
    "refused": "it arrived and was refused: nobody listens there",
    "unreachable": "it did not arrive, and the sender was told",
    "lost": "it did not arrive",
    "unanswered": "it arrived; no reply was sent",
    "reply lost": "it arrived; the reply did not come back",
    "data lost": "connected, but the payload was not confirmed",
    "not sent": "it was not sent",
}


def show(answer: TraceAnswer, wait: Callable[[], bool] | None = None) -> None:
    """The whole trace; `wait` is called before every hop but the first, until it says that it need not be any more."""
    print(headline(answer))
    rows = [(hop, row(hop)) for hop in answer["hops"]]
    shown = [cells for _, cells in rows]
    widths = [max([len(HEADINGS[at]), *(len(cells[at]) for cells in shown)]) for at in range(len(HEADINGS))]
    wide = sum(widths) + 2 * len(widths) <= _columns()
    if rows:
        print("\n" + _line(HEADINGS, widths, wide))
    leg: Leg | None = None
    for hop, cells in rows:
        if wait is not None and hop["number"] > 1 and not wait():
            wait = None
        if hop["leg"] != leg:
            leg = hop["leg"]
            print(f"-- {LEGS[leg]}: {hop['inner']['proto']} {hop['inner']['info']}")
        print(_line(cells, widths, wide))
        if not wide:
            print(f"{'':{widths[0]}}    {cells[-1]}")
    for line in conclusion(answer):
        print(line)


@contextlib.contextmanager
def key_by_key() -> Iterator[Callable[[], bool]]:
    """What waits for a key, and says False for q, which asks for all the rest."""
    former = termios.tcgetattr(0)
    # Once for all keys, and without throwing away those that were pressed meanwhile.
    tty.setcbreak(0, termios.TCSADRAIN)
    try:
        yield lambda: os.read(0, 1) not in (b"q", b"Q", b"")
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, former)


def headline(answer: TraceAnswer) -> str:
    """What was sent, from where to where."""
    return f"{answer['probe']['from']} → {answer['probe']['to']}: {sent_line(answer)}"


def sent_line(answer: TraceAnswer) -> str:
    """Return the traced packet in a line: what, and between which addresses."""
    probe = answer["probe"]
    what = {"tcp": "TCP connection", "udp": "UDP datagram", "icmp": "ICMP echo request"}[probe["protocol"]]
    source = _with_port(probe["source"] or probe["from"], probe["source_port"])
    destination = _with_port(probe["destination"], probe["destination_port"])
    return f"{what} {source} → {destination}"


def outcome_line(answer: TraceAnswer) -> str:
    """Return what came of it, and how long that took."""
    took = f" in {answer['hops'][-1]['at_us']:.0f} µs" if answer["outcome"] == "answered" and answer["hops"] else ""
    return OUTCOMES[answer["outcome"]] + took


def conclusion(answer: TraceAnswer) -> Iterator[str]:
    """What came of it."""
    yield ""
    yield f"outcome: {outcome_line(answer)}"
    if answer["lost_at"]:
        lost = answer["lost_at"]
        yield f"last seen: {lost['where']}, {lost['direction']}"
    for number, why in enumerate(answer["reasons"]):
        yield f"{'why:' if number == 0 else '    '} {why}"
    for warning in answer["warnings"]:
        yield f"warning: {warning}"
    for hop in answer["strays"]:
        if hop["direction"] == "in":
            yield f"stray copy: {hop['where']} ({hop['why']})"
    for place in answer["unwatched"]:
        yield f"not watched: {place}"


def row(hop: TraceHop) -> tuple[str, ...]:
    """A hop's cells, in the order of HEADINGS."""
    inner, outer = hop["inner"], hop["outer"]
    return (
        str(hop["number"]),
        f"{hop['at_us']:.0f}",
        hop["where"],
        {"in": "in", "out": "out"}[hop["direction"]],
        _pair(inner),
        str(inner["ttl"]),
        _pair(outer) if outer else "-",
        str(hop["mtu"] or "-"),
        hop["why"],
    )


def _line(cells: tuple[str, ...], widths: list[int], wide: bool) -> str:
    kept = len(cells) if wide else len(cells) - 1
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells[:kept], widths, strict=False)).rstrip()


def _pair(packet: HopPacket) -> str:
    return f"{_with_port(packet['src'], packet['sport'])} → {_with_port(packet['dst'], packet['dport'])}"


def _with_port(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
