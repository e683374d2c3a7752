"""`testbed ui`: the page in a real headless Chromium, and who may talk to its server."""

import http.client
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.control.wire import CONTROL_SOCKET
from testbed.pytest_plugin import NewLab
from tests.browser import ENTER, LEFT, RIGHT, SHIFT, Browser, browser
from tests.e2e.command import read_until, run_verb
from tests.e2e.lab import Lab
from tests.waiting import constantly, wait_until

ONLY_NGINX = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-nginx}
spec:
  podSelector: {matchLabels: {app: tomcat}}
  ingress: [{from: [{podSelector: {matchLabels: {app: nginx}}}], ports: [{port: 8080}]}]
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A running `testbed ui`."""

    url: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Return a request as the page's own scripts send it, with these headers changed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if body is None or isinstance(body, str) else json.dumps(body)
            own = {"Content-Type": "application/json", "Origin": self.origin} if method == "POST" else {}
            changed = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, own | changed)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, what: str, body: object, **headers: str) -> tuple[int, Any]:
        status, answer = self.ask("POST", urlsplit(self.url).path + what, body, **headers)
        return status, json.loads(answer)


@pytest.fixture(scope="module")
def page(nginx_tomcat: Lab) -> Iterator[Page]:
    with nginx_tomcat.running("ui") as server:
        yield Page(re.findall(r"http://\S+", read_until(server.stdout, r"http://127\.0\.0\.1:\d+/\S+/\n"))[0])


def test_the_page_is_only_on_this_machines_loopback(page: Page) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {words[1].split(":")[0] for words in listening if words[1].endswith(f":{page.port:04X}")}
    assert addresses == {"0100007F"}


def test_without_the_secret_nothing_is_shown_and_nothing_done(page: Page) -> None:
    wrong = "/" + "x" * 24 + "/"
    for path in ("/", "/live", wrong, wrong + "live", wrong + "app.js", "//", ""):
        assert page.ask("GET", path or "/")[0] == 403, path
    assert page.ask("POST", wrong + "heal", {})[0] == 403


def test_another_host_name_for_this_server_is_refused(page: Page) -> None:
    path = urlsplit(page.url).path
    assert page.ask("GET", path, Host=f"127.0.0.1:{page.port}")[0] == 200
    for host in (f"evil.example:{page.port}", "127.0.0.1", f"localhost:{page.port}"):
        assert page.ask("GET", path, Host=host)[0] == 403, host


def test_another_pages_request_is_refused_even_with_the_secret(page: Page) -> None:
    assert page.post("heal", {})[0] == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{page.port + 1}", ""):
        assert page.post("heal", {}, Origin=origin)[0] == 403, origin
    assert page.post("heal", {}, Content_Type="text/plain")[0] == 400
    assert page.ask("POST", urlsplit(page.url).path + "heal", None)[0] == 400


def test_a_body_that_is_no_request_is_refused_however_deep_it_is(page: Page) -> None:
    for body in ("[" * 4000, '{"a":' * 800, "9" * 4096, '"', "\0", "[]"):
        assert page.ask("POST", urlsplit(page.url).path + "trace", body)[0] == 400, body[:20]


def test_only_what_the_page_offers_can_be_asked_for(page: Page) -> None:
    assert page.post("exec", {"argv": ["id"]})[0] == 404
    assert page.ask("GET", urlsplit(page.url).path + "../server.py")[0] == 404
    for words in (
        ["agent", "kill", "node9"],
        ["node", "crash", "node1"],
        ["etcd", "wipe", "etcd1"],
        "agent kill node1",
    ):
        status, answer = page.post("fault", {"words": words})
        assert (status, "does not offer this" in answer["error"]) == (409, True), words


def test_the_page_asks_no_other_host(page: Page) -> None:
    path = urlsplit(page.url).path
    for name in ("", "app.js", "style.css", "picture.css"):
        status, body = page.ask("GET", path + name)
        assert status == 200
        elsewhere = [url for url in re.findall(r"https?://[^\s\"')]+", body.decode()) if "www.w3.org" not in url]
        assert elsewhere == [], name


def test_a_trace_has_its_hops_and_its_path_on_the_picture(page: Page) -> None:
    status, answer = page.post("trace", {"source": "nginx", "destination": "tomcat:8080"})
    assert (status, answer["trace"]["outcome"]) == (200, "answered")
    assert answer["way"].count('class="step"') == len(answer["trace"]["hops"])


def test_a_trace_names_the_fault_that_explains_its_loss(page: Page, nginx_tomcat: Lab) -> None:
    number = page.post("fault", {"words": ["agent", "pause", "node2"]})[1]["number"]
    try:
        answer = page.post("trace", {"source": "nginx", "destination": "tomcat:8080"})[1]
        assert f"fault {number} (agent pause) is on: node2" in answer["trace"]["reasons"]
    finally:
        page.post("heal", {"number": number})
        nginx_tomcat.handle.wait_ready()


def test_arrows_of_a_pod_show_what_policies_allow_and_deny(page: Page, nginx_tomcat: Lab) -> None:
    assert page.post("policies", {"pod": "tomcat"})[1]["edges"] == ""
    nginx_tomcat.must("apply", "-f", "-", "--wait", stdin=ONLY_NGINX)
    try:
        status, answer = page.post("policies", {"pod": "tomcat"})
        titles = re.findall(r'class="policy (\w+)"><title>(.*?)</title>', answer["edges"])
        assert (status, sorted(titles)) == (
            200,
            [
                ("bad", "client → tomcat: nothing passes"),
                ("busy", "nginx → tomcat: 8080/tcp pass"),
                ("good", "tomcat → client: everything passes"),
                ("good", "tomcat → nginx: everything passes"),
            ],
        )
        assert page.post("policies", {"pod": ""})[0] == 409
    finally:
        nginx_tomcat.must("delete", "networkpolicy", "only-nginx")


def test_a_taken_port_is_an_error_in_one_line(page: Page, nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("ui", "--port", str(page.port))
    assert (answer.code, answer.err.count("\n")) == (3, 1)
    assert f"127.0.0.1:{page.port}" in answer.err


def test_no_lab_no_page() -> None:
    assert run_verb("ui", "--lab", "no-such-lab").code == 1


@pytest.fixture(scope="module")
def broken_lab(new_lab: NewLab) -> Iterator[Lab]:
    """Yield a lab of this file alone, for an agent is killed in it."""
    with new_lab("nginx_tomcat") as handle:
        yield Lab(handle.name)


@pytest.fixture(scope="module")
def address(broken_lab: Lab) -> Iterator[str]:
    with broken_lab.running("ui") as server:
        yield re.findall(r"http://\S+", read_until(server.stdout, r"http://127\.0\.0\.1:\d+/\S+/\n"))[0]


@pytest.fixture(scope="module")
def window(address: str) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as one:
        one.open(address)
        yield one


WAY = [
    "nginx/eth0",
    "node1/vethnginx",
    "node1/docker0",
    "node1/flannel0",
    "node1/node1-eth0",
    "s1/s1-eth1",
    "s1/s1-eth2",
    "node2/node2-eth0",
    "node2/flannel0",
    "node2/docker0",
    "node2/vethtomcat",
    "tomcat/eth0",
]


@pytest.mark.slow
def test_the_page_shows_the_lab(window: Browser) -> None:
    window.find("#picture g.node[data-node=node1]")
    window.find("#picture g.node[data-node=node2]")
    window.wait_text("#state", lambda texts: texts == ["ready"], 10, "the lab is ready")
    window.wait_text("#table-pods tbody tr", lambda rows: len(rows) == 3, 10, "three pods")
    window.wait_text("#table-leases tbody tr", lambda rows: len(rows) == 2, 10, "two leases")
    assert any("192.168.8.228:8285" in row for row in window.texts("#table-forwarding tbody tr"))
    window.wait_text("#picture text.rate", lambda texts: bool(texts), 10, "traffic, of etcd at least")
    assert [line for line in window.log() if "Failed" in line or "Error" in line or "violates" in line] == []


@pytest.mark.slow
def test_two_clicks_send_a_packet_and_show_its_path(window: Browser) -> None:
    window.click("#picture g.pod[data-pod=nginx]")
    window.click("#picture g.pod[data-pod=tomcat]")
    window.wait_text("#outcome", lambda texts: texts == ["nginx → tomcat:8080: answered"], 15, "an answer")
    where = window.run("return [...document.querySelectorAll('tr.hop')].map((row) => row.dataset.where)")
    assert where == [*WAY, *reversed(WAY)]
    rows = window.texts("tr.hop")
    assert "192.168.8.227:8285 → 192.168.8.228:8285" in rows[4]
    assert re.search(r"10\.0\.46\.2:\d+ → 10\.0\.90\.2:8080", rows[4])
    assert len(window.texts("#picture g.steps .step")) == len(where)
    assert window.texts("#legend") == ["requestreply"]
    assert window.texts("tr.leg") == ["request: tcp SYN", "reply: tcp SYN ACK"]
    # The packet runs along its way, and the table with it.
    window.find("#picture .runner")
    window.find("tr.hop.now")
    window.run("changeSpeed(2)")
    wait_until(
        lambda: window.run("return player.playing ? '' : document.querySelector('tr.hop.now').dataset.step") == "24",
        timeout_s=20,
        what="the packet has arrived, and its reply",
    )
    assert window.run("return document.querySelectorAll('.runner').length") == 0


@pytest.mark.slow
def test_keys_step_through_the_hops_and_every_hop_shows_its_headers(window: Browser) -> None:
    window.press("body", "r")
    window.press("body", " ")
    assert window.run("return player.playing") is False
    window.run("goTo(0)")
    for number in (2, 3, 4, 5):
        window.press("body", RIGHT)
        assert window.texts("tr.hop.now .number") == [str(number)]
    assert window.texts("#stack .header text.name") == ["Ethernet", "IPv4", "UDP", "IPv4", "TCP"]
    assert "UDP, 8 bytes: source port 8285, destination port 8285" in window.texts("#bytes")[0]
    window.press("body", LEFT)
    assert window.texts("#stack .header text.name") == ["IPv4", "TCP"]
    window.click("tr.hop[data-step='12']")
    assert window.texts("#picture .step.now text") == ["12"]


@pytest.mark.slow
def test_a_chosen_pod_shows_its_policies_as_they_are_now_until_another_click(window: Browser, broken_lab: Lab) -> None:
    def arrows(count: int, what: str) -> None:
        shown = "return document.querySelectorAll('#picture g.policy').length"
        wait_until(lambda: window.run(shown) == count, timeout_s=10, what=what)

    broken_lab.must("apply", "-f", "-", "--wait", stdin=ONLY_NGINX)
    try:
        window.click("#picture g.pod[data-pod=tomcat]")
        arrows(4, "the chosen pod's arrows")
        broken_lab.must("delete", "networkpolicy", "only-nginx")
        arrows(0, "no arrows without a policy")
        broken_lab.must("apply", "-f", "-", "--wait", stdin=ONLY_NGINX)
        arrows(4, "arrows of a policy that was applied later")
        window.click("#picture g.pod[data-pod=tomcat]")
        arrows(0, "no arrows without a chosen pod")
    finally:
        broken_lab.must("delete", "networkpolicy", "only-nginx")


@pytest.mark.slow
def test_keys_enlarge_the_type_and_darken_the_page(window: Browser) -> None:
    size = "return parseFloat(getComputedStyle(document.querySelector('tr.hop .why')).fontSize)"
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = window.run(size), window.run(ground)
    window.press("body", "t")
    window.press("body", "d")
    assert window.run(size) > before[0]
    assert window.run(ground) != before[1]
    for key in "tttd":
        window.press("body", key)
    assert (window.run(size), window.run(ground)) == before


@pytest.mark.slow
def test_a_clicked_object_shows_its_facts_and_active_faults(window: Browser, broken_lab: Lab) -> None:
    for css, heading, fact in (
        ("[data-agent=node1] text", "agent node1", "1 of 1"),
        ("[data-device='node1/flannel0'] text", "device node1/flannel0", "up, MTU 1472"),
        ("[data-machine=s1] text", "machine s1", "s1-eth2"),
        ("[data-service=nginx] text", "service nginx", "80/TCP"),
        ("[data-node=node2] > text", "node node2", "default via 192.168.8.10"),
        ("[data-link='node2/node2-eth0 s1/s1-eth2'] .hit", "link node2/node2-eth0 s1/s1-eth2", "unshaped"),
    ):
        x, y = window.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]",
            f"#picture {css}",
        )
        window.click_at(x, y)
        window.wait_text("#table-facts h3", lambda texts, wanted=heading: texts == [wanted], 10, heading)  # type: ignore[misc]
        assert fact in " ".join(window.texts("#table-facts")), heading
    assert window.texts("#table-facts .offers button") == ["cut", "loss 30 %", "delay 100ms", "heal"]
    window.click("#table-facts .offers button")
    window.find("#picture .wire.cable.down")
    window.wait_text("#picture g.fault text", lambda texts: len(texts) == 1, 10, "the fault on the picture")
    window.wait_text("#active-faults", lambda texts: texts == ["1 active fault"], 10, "the fault in the header")
    assert re.fullmatch(r"fault \d+ \(link down\) is on: node2 s1", window.run("return $('active-faults').title"))
    window.click("#heal")
    window.wait_text("#table-faults tbody tr", lambda rows: rows == [], 15, "no fault")
    broken_lab.handle.wait_ready()


@pytest.mark.slow
def test_the_keyboard_alone_sends_a_packet(window: Browser) -> None:
    window.press("#picture g.pod[data-pod=tomcat]", ENTER)
    window.press("#picture g.pod[data-pod=client]", ENTER)
    window.wait_text("#outcome", lambda texts: texts[0].startswith("tomcat → client"), 15, "an answer")


@pytest.mark.slow
def test_a_fault_injected_in_one_window_can_be_healed_in_another(
    window: Browser, address: str, broken_lab: Lab
) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as other:
        other.open(address)
        other.wait_text("#state", lambda texts: texts == ["ready"], 10, "the lab is ready")
        broken_lab.must("fault", "link", "down", "node2", "s1")
        for one in (window, other):
            one.find("#picture .wire.cable.down")
        other.click("#heal")
        for one in (window, other):
            one.wait_text("#table-faults tbody tr", lambda rows: rows == [], 15, "no fault")
        other.click("#picture g.pod[data-pod=client]")
        other.click("#picture g.pod[data-pod=nginx]")
        other.wait_text("#outcome", lambda texts: texts[0].startswith("client → nginx"), 15, "an answer")
        # What somebody looks at is their own.
        assert not window.texts("#outcome")[0].startswith("client → nginx")


@pytest.mark.slow
def test_an_agent_that_is_killed_by_its_button_goes_and_comes_back(window: Browser, broken_lab: Lab) -> None:
    window.run(
        """
        window.seen = [];
        new MutationObserver(() => {
          const node = document.querySelector("#picture g.node[data-node=node1]");
          if (node) window.seen.push(node.getAttribute("class"));
        }).observe(document.getElementById("picture"), { childList: true });
        """
    )
    window.click("#tab-nodes")
    window.click("button.kill[data-node=node1]")
    window.wait_text("#outcome", lambda texts: texts[0].startswith("fault "), 10, "the fault is told")
    wait_until(
        lambda: any("state-good" not in seen for seen in window.run("return window.seen")),
        timeout_s=15,
        what="node1's agent is not well on the picture",
    )
    window.wait_text("#table-events tbody tr", lambda rows: any("AgentEnded" in row for row in rows), 10, "an event")
    window.find("#picture g.node.state-good[data-node=node1]", timeout_s=30)
    window.wait_text(
        "#table-nodes tbody tr[data-name=node1] td", lambda cells: cells[3:6] == ["ready", "1/1", "1"], 30, "it is back"
    )
    assert broken_lab.node("node1")["agent"]["restarts"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "fault"),
    [
        ("#picture g.pod[data-pod=nginx]", ("link", "down", "node2", "s1")),
        ("button.kill[data-node=node2]", ("agent", "kill", "node1")),
    ],
)
def test_redrawing_keeps_the_keyboard_focus(
    control: str, fault: tuple[str, ...], window: Browser, broken_lab: Lab
) -> None:
    window.click("#tab-nodes")
    window.press(control, SHIFT)
    window.run("document.activeElement.dataset.old = 'yes'")
    broken_lab.must("fault", *fault)
    try:
        wait_until(
            lambda: window.run("return document.querySelectorAll('[data-old]').length") == 0,
            timeout_s=15,
            what=f"{control} is drawn anew",
        )
        assert window.run("return document.activeElement.matches(arguments[0])", control)
    finally:
        broken_lab.must("fault", "heal")
        broken_lab.handle.wait_ready()


@pytest.mark.slow
def test_a_fault_is_listed_and_the_button_heals_it(window: Browser, broken_lab: Lab) -> None:
    broken_lab.must("fault", "link", "down", "node2", "s1")
    window.wait_text("#table-faults tbody tr", lambda rows: any("link down" in row for row in rows), 10, "the fault")
    window.find("#picture .wire.cable.down")
    window.click("#heal")
    window.wait_text("#table-faults tbody tr", lambda rows: rows == [], 15, "no fault")
    wait_until(
        lambda: window.run("return document.querySelectorAll('#picture .wire.cable.down').length") == 0,
        timeout_s=10,
        what="the cable is drawn as plugged in",
    )


@pytest.mark.slow
def test_a_lab_that_does_not_answer_for_a_chosen_pod_is_reported_once_and_so_is_its_return(
    window: Browser, broken_lab: Lab
) -> None:
    window.run(
        """
        document.getElementById("table-facts").replaceChildren();
        window.said = [];
        const outcome = document.getElementById("outcome");
        new MutationObserver(() => said.push(outcome.textContent)).observe(outcome, { childList: true });
        """
    )

    def said() -> list[str]:
        return list(window.run("return window.said"))

    socket = Path(broken_lab.json("status")["rundir"]) / CONTROL_SOCKET
    window.click("#picture g.pod[data-pod=tomcat]")
    window.wait_text("#table-facts h3", lambda texts: texts == ["pod tomcat"], 10, "the click's own question")
    socket.rename(socket.with_suffix(".hidden"))
    try:
        wait_until(said, timeout_s=10, what="the failure")
        constantly(lambda: len(said()) == 1, for_s=5, what="the failure is not repeated")
    finally:
        socket.with_suffix(".hidden").rename(socket)
    wait_until(lambda: said()[1:] == ["the lab answers again"], timeout_s=10, what="the lab's return")
    constantly(lambda: len(said()) == 2, for_s=3, what="nothing more is said")
    window.click("#picture g.pod[data-pod=tomcat]")


@pytest.mark.slow
def test_the_end_of_a_lab_is_reported(window: Browser, broken_lab: Lab) -> None:
    broken_lab.down()
    window.wait_text("#problem", lambda texts: bool(texts[0]), 15, "what is wrong")
    assert broken_lab.name in window.texts("#problem")[0] or "ended" in window.texts("#problem")[0]
