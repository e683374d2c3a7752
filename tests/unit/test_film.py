"""The film of README: what it shows and when."""

import re
from xml.etree import ElementTree

from tests.film import FILE, LINE, LONGEST_S, ROWS, SCRIPT, Said, Take, cut, draw

SVG = "{http://www.w3.org/2000/svg}"
TAKES = [
    Take("sudo testbed up", tuple(Said(number / 10, f"line <{number}>") for number in range(ROWS + 5))),
    Take("sudo testbed down", ()),
]


def test_lines_come_in_their_order_after_their_command() -> None:
    shown, seconds = cut(TAKES)
    assert [one.text for one in shown if one.typed] == ["$ sudo testbed up", "$ sudo testbed down"]
    assert [one.at for one in shown] == sorted(one.at for one in shown)
    assert shown[1].text == "line <0>"
    assert shown[-1].at < seconds


def test_every_line_is_drawn_and_a_full_screen_scrolls() -> None:
    shown, seconds = cut(TAKES)
    made = draw(shown, seconds)
    lines = [text.text for text in ElementTree.fromstring(made).iter(f"{SVG}text")]
    assert lines == [one.text for one in shown]
    assert f"100% {{ transform: translateY(-{(len(shown) - ROWS) * LINE}px) }}" in made
    assert len(re.findall(r"@keyframes l\d+ ", made)) == len(shown)


def test_the_film_has_the_commands_of_its_script_and_is_shorter_than_a_minute() -> None:
    text = FILE.read_text(encoding="utf-8")
    picture = ElementTree.fromstring(text)
    typed = [line.text for line in picture.iter(f"{SVG}text") if line.get("class") == "typed"]
    assert typed == [f"$ {command}" for command in SCRIPT]
    (seconds,) = re.findall(r"animation: ([0-9.]+)s step-end infinite", text)
    assert float(seconds) < LONGEST_S


def test_the_film_moves_without_scripts_and_asks_no_other_host() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"(href|src)=|url\(|@import", text)
