"""`testbed ui` for a room: picture and active hop stay in view, at every size of window, lab and zoom."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, browser
from tests.e2e.command import read_until
from tests.e2e.lab import Lab, fresh_name
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
WINDOWS = {
    "1280x800": (1280, 800, 1.0),
    "1280x800 at 150 %": (1280, 800, 1.5),
    "1920x1080": (1920, 1080, 1.0),
    "390x844": (390, 844, 1.0),
}
INSIDE = """
const inside = (box) => box.width > 0 && box.left >= -1 && box.top >= -1
  && box.right <= innerWidth + 1 && box.bottom <= innerHeight + 1;
const list = document.getElementById("table-path").getBoundingClientRect();
const picture = document.getElementById("picture").getBoundingClientRect();
const disc = document.querySelector("#picture .step.now circle").getBoundingClientRect();
const row = document.querySelector("tr.hop.now").getBoundingClientRect();
return {
  picture: inside(picture),
  high: picture.height / innerHeight,
  disc: inside(disc) && disc.left >= picture.left && disc.right <= picture.right && disc.top >= picture.top
    && disc.bottom <= picture.bottom,
  row: inside(row) && row.top >= list.top - 1 && row.bottom <= list.bottom + 1,
  stack: inside(document.querySelector("#stack svg").getBoundingClientRect()),
  scrolls: ["Height", "Width"].some((way) => document.documentElement[`scroll${way}`] > window[`inner${way}`] + 1),
};
"""
OVERLAPS = """
const boxes = [...document.querySelectorAll("#picture > svg text")]
  .filter((text) => !text.closest(".step, .fault, .hidden"))
  .map((text) => ({ words: text.textContent, box: text.getBBox() }));
const found = [];
boxes.forEach((one, at) => boxes.slice(at + 1).forEach((other) => {
  const [a, b] = [one.box, other.box];
  const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (across > 1 && down > 4) found.push(`${one.words} / ${other.words}`);
}));
return found;
"""
RUNS_OVER = """
return [...document.querySelectorAll("#picture > svg g > rect.box")].flatMap((rect) => {
  const box = rect.getBBox();
  return [...rect.parentNode.children].filter((one) => one.tagName === "text")
    .filter((text) => text.getBBox().x < box.x || text.getBBox().x + text.getBBox().width > box.x + box.width + 0.5)
    .map((text) => text.textContent);
});
"""


@pytest.fixture(scope="module", params=[2, 6, 20], ids=["two nodes", "six nodes", "twenty nodes"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(fresh_name(f"room{request.param}"))
    try:
        answer = lab.up("--nodes", str(request.param))
        assert answer.code == 0, str(answer)
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def window(lab: Lab) -> Iterator[Browser]:
    with lab.running("ui") as server, tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as one:
        one.open(re.findall(r"http://\S+", read_until(server.stdout, r"http://127\.0\.0\.1:\d+/\S+/\n"))[0])
        one.find("#picture g.pod", timeout_s=20)
        yield one


def trace_between_first_and_last(window: Browser) -> int:
    """Send a packet from the first node's pod to the last one's; the number of hops."""
    window.wait_text("#table-pods tbody tr", lambda rows: len(rows) >= 4, 20, "the pods")
    window.run(
        """
        window.before = state.way;
        $("source").value = state.pods[0];
        $("destination").value = state.pods[state.pods.length - 1];
        suggestPort();
        send();
        """
    )
    wait_until(lambda: window.run("return state.way !== window.before"), timeout_s=20, what="an answer")
    return int(window.run("player.playing = false; return hops().length"))


@pytest.mark.parametrize("size", WINDOWS)
def test_picture_and_active_hop_are_in_the_window_at_every_hop(size: str, window: Browser) -> None:
    window.resize(*WINDOWS[size])
    window.run("zoomToAll()")
    count = trace_between_first_and_last(window)
    assert count >= 20
    for number in range(count):
        seen: dict[str, Any] = window.run(f"goTo({number}); " + INSIDE)
        assert seen["picture"], number
        assert seen["disc"], number
        assert seen["row"], number
        assert seen["stack"], number
        assert not seen["scrolls"], number
        assert seen["high"] > 0.3


def test_texts_keep_apart_and_in_their_boxes_as_the_browser_draws_them(window: Browser) -> None:
    window.resize(1280, 800)
    window.find("#picture text.rate", timeout_s=20)
    assert window.run(OVERLAPS) == []
    assert window.run(RUNS_OVER) == []


def test_a_followed_file_can_be_read(window: Browser) -> None:
    window.resize(1280, 800)
    trace_between_first_and_last(window)
    assert float(window.run("return 11 / pixel()")) >= 6, "a name is at least six pixels high"


def test_wheel_and_buttons_zoom_and_the_whole_lab_comes_back(window: Browser) -> None:
    window.resize(1280, 800)
    window.run("zoomToAll()")
    whole = window.run("return picture().getAttribute('viewBox')")
    window.run(
        """
        const place = $("picture").getBoundingClientRect();
        const at = { clientX: place.left + 50, clientY: place.top + 50, deltaY: -100, bubbles: true, cancelable: true };
        picture().dispatchEvent(new WheelEvent("wheel", at));
        """
    )
    assert window.run("return numbers(picture().getAttribute('viewBox'))[2]") < float(whole.split()[2])
    window.click("#zoom-in")
    window.click("#zoom-all")
    assert window.run("return picture().getAttribute('viewBox')") == whole
