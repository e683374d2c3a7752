"""The film in README: commands typed into a shell, what they said and when, as an SVG that moves without scripts.

sudo scripts/film        python -m tests.film    records a run and writes docs/pictures/film.svg
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.documents import ROOT

FILE = ROOT / "docs" / "pictures" / "film.svg"
SCRIPT = (
    "sudo testbed up",
    "sudo testbed ping",
    "sudo testbed trace client tomcat:8080 | head -18",
    "sudo testbed fault partition node1 / node2",
    "sudo testbed check | head -8",
    "sudo testbed fault heal",
    "sudo testbed check | tail -4",
    "sudo testbed down",
)
COLUMNS, ROWS = 118, 30
LINE, CHARACTER, EDGE = 17, 7.22, 14
"""Pixels: height of a line, width of a character, margin."""
LONGEST_S = 60.0
BEFORE_OUTPUT_S, AFTER_COMMAND_S, TO_READ_S = 0.6, 1.2, 0.16
"""A pause behind a typed command, one behind its output, and for each line of it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One line of output, in seconds after its command was typed."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Take:
    """One command and what it said."""

    command: str
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One line on the screen, in seconds from the beginning of the film."""

    at: float
    text: str
    typed: bool = False


def record(command: str) -> Take:
    """Run one command of the script. Raises CalledProcessError when one fails that should not."""
    begun = time.monotonic()
    bash = command.replace("sudo testbed", f'"{sys.executable}" -m testbed')
    said = []
    with subprocess.Popen(["bash", "-c", bash], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        said += [Said(time.monotonic() - begun, line.rstrip("\n")) for line in running.stdout]
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command, "\n".join(one.text for one in said))
    return Take(command, tuple(said))


def cut(takes: Sequence[Take]) -> tuple[list[Shown], float]:
    """Put the takes on one time line: the lines in order, and how long all of it takes."""
    shown, now = [], 0.5
    for take in takes:
        shown.append(Shown(now, f"$ {take.command}", typed=True))
        begun = now + BEFORE_OUTPUT_S
        shown += [Shown(begun + one.at, one.text) for one in take.said]
        now = begun + (take.said[-1].at if take.said else 0) + AFTER_COMMAND_S + TO_READ_S * len(take.said)
    return shown, now + 2


def draw(shown: Sequence[Shown], seconds: float) -> str:
    """Draw the film: every line appears at its time, and the screen scrolls when it is full."""
    width, height = int(COLUMNS * CHARACTER + 2 * EDGE), ROWS * LINE + 2 * EDGE
    size = f'width="{width}" height="{height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size}>',
            "<title>testbed: up, ping, trace, fault, check, down</title>",
            "<style>",
            "text { font: 12px 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre; }",
            "text.typed { fill: #7ee787; font-weight: bold; }",
            f"text, g {{ animation: {seconds:.1f}s step-end infinite; }}",
            *_keyframes(shown, seconds),
            "@media (prefers-reduced-motion: reduce) { text, g { animation: none !important; } }",
            "</style>",
            f'<rect {size} rx="8" fill="#0d1117"/>',
            f'<svg y="{EDGE}" height="{ROWS * LINE}" overflow="hidden">',
            f'<g id="screen" style="transform: translateY({-_scrolled(len(shown))}px); animation-name: scroll">',
            *_lines(shown),
            "</g>",
            "</svg>",
            "</svg>\n",
        )
    )


def _scrolled(lines: int) -> int:
    """Return how far the screen has moved when it has so many lines."""
    return max(0, lines - ROWS) * LINE


def _keyframes(shown: Sequence[Shown], seconds: float) -> Iterator[str]:
    moves = ["0% { transform: translateY(0px) }"]
    for number, line in enumerate(shown):
        share = 100 * line.at / seconds
        yield f"@keyframes l{number} {{ 0% {{ opacity: 0 }} {share:.2f}%, 100% {{ opacity: 1 }} }}"
        if number >= ROWS:
            moves.append(f"{share:.2f}% {{ transform: translateY({-_scrolled(number + 1)}px) }}")
    moves.append(f"100% {{ transform: translateY({-_scrolled(len(shown))}px) }}")
    yield f"@keyframes scroll {{ {' '.join(moves)} }}"


def _lines(shown: Sequence[Shown]) -> Iterator[str]:
    for number, line in enumerate(shown):
        text = line.text if len(line.text) <= COLUMNS else f"{line.text[: COLUMNS - 1]}…"
        kind = ' class="typed"' if line.typed else ""
        baseline = (number + 1) * LINE - 4
        yield (
            f'<text{kind} x="{EDGE}" y="{baseline}" xml:space="preserve" style="animation-name: l{number}">'
            f"{escape(text, quote=False)}</text>"
        )


def main() -> int:
    """Record all of the script and write the film."""
    takes: list[Take] = []
    try:
        for command in SCRIPT:
            takes.append(record(command))
            print(f"{command}: {takes[-1].said[-1].at:.1f} s, {len(takes[-1].said)} lines")
    except subprocess.CalledProcessError as error:
        print(f"error: scripts/film: {error.cmd}: exit code {error.returncode}\n{error.output}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "testbed", "down", "--all"], check=False)
        return 1
    shown, seconds = cut(takes)
    if seconds > LONGEST_S:
        want = f"{LONGEST_S:.0f} s: try again when the machine is quiet"
        print(f"error: scripts/film: too long (got {seconds:.0f} s; want {want})", file=sys.stderr)
        return 1
    FILE.write_text(draw(shown, seconds), encoding="utf-8")
    print(f"wrote {FILE.relative_to(ROOT)}: {seconds:.0f} s, {len(shown)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
