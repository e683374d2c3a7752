"""A real headless Chromium for tests, driven by chromedriver: the W3C WebDriver protocol is plain HTTP and JSON."""

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""WebDriver's key of an element's id."""
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # as root Chromium refuses to start with it
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1500,1000",
)
LIMIT_S = 60.0
ENTER, SHIFT, LEFT, RIGHT = "\ue007", "\ue008", "\ue012", "\ue014"
"""Keys, in WebDriver's numbers (W3C WebDriver §17.4.2)."""


class Browser:
    """One window."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        options = {"args": [*ARGUMENTS, f"--user-data-dir={directory}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def resize(self, width: int, height: int, zoom: float = 1.0) -> None:
        """Show the page as in a window of this size in pixels of the screen, zoomed in by Ctrl +."""
        metrics = {
            "width": round(width / zoom),
            "height": round(height / zoom),
            "deviceScaleFactor": zoom,
            "mobile": False,
        }
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._call("POST", f"{self._session}/goog/cdp/execute", command)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the script returns
        """Run JavaScript in the page."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str, timeout_s: float = 10.0) -> str:
        """Return the id of the first element that matches, as soon as there is one."""

        def found() -> str:
            answer = self._call("POST", f"{self._session}/elements", {"using": "css selector", "value": css})
            return str(answer[0][ELEMENT]) if answer else ""

        return wait_until(found, timeout_s=timeout_s, what=f"an element {css}")

    def click(self, css: str) -> None:
        """Click on it as a person does: with the mouse, at its middle, if nothing lies over it."""

        def clicked() -> bool:
            # Pictures are exchanged while the lab changes: the element of a moment ago may have gone.
            try:
                self._call("POST", f"{self._session}/element/{self.find(css)}/click", {})
            except StaleElement:
                return False
            return True

        wait_until(clicked, timeout_s=10, what=f"a click on {css}")

    def click_at(self, x: float, y: float) -> None:
        """Click with the mouse on a place of the window."""
        where = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
        acts = [where, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": acts}
        self._call("POST", f"{self._session}/actions", {"actions": [mouse]})

    def press(self, css: str, key: str) -> None:
        """Give it the keyboard and press a key there."""
        self._call("POST", f"{self._session}/element/{self.find(css)}/value", {"text": key})

    def texts(self, css: str) -> list[str]:
        """Return the text of every element that matches."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent.trim())"
        return [str(text) for text in self.run(script, css)]

    def wait_text(self, css: str, right: Callable[[list[str]], bool], timeout_s: float, what: str) -> list[str]:
        """Return the texts of what matches, as soon as they are right."""
        seen: list[str] = []

        def good() -> bool:
            seen[:] = self.texts(css)
            return right(seen)

        wait_until(good, timeout_s=timeout_s, what=what)
        return seen

    def log(self) -> list[str]:
        """Return what the page wrote to its console since the last time: errors too."""
        return [entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def close(self) -> None:
        """Close the window and end the browser."""
        with contextlib.suppress(OSError):
            self._call("DELETE", self._session)

    def _call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(answer, dict) and "error" in answer:
            kind = StaleElement if answer["error"] in GONE else AssertionError
            raise kind(f"{method} {path}: {answer['error']}: {answer['message'].splitlines()[0]}")
        return answer


class StaleElement(Exception):
    """The element has gone, or something lies over it just now."""


GONE = ("stale element reference", "element click intercepted", "no such element", "element not interactable")


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Yield a browser with a profile of its own in `directory`, ended afterwards; without one the test is skipped."""
    if shutil.which("chromedriver") is None:
        pytest.skip("no chromedriver (Ubuntu has it as a snap only; elsewhere: scripts/install --tests)")
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert driver.stdout is not None
        found = None
        while found is None:
            line = driver.stdout.readline()
            assert line, "chromedriver ended"
            found = re.search(r"started successfully on port (\d+)", line)
        window = Browser(int(found[1]), directory)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(10)
        if driver.stdout is not None:
            driver.stdout.close()
