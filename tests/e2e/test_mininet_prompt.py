"""`cli`: Mininet's own prompt on a running lab."""

import re
from collections.abc import Iterator

import pytest

from tests.e2e.command import Terminal
from tests.e2e.lab import Lab
from tests.waiting import wait_until

PROMPT = "testbed> "


@pytest.fixture
def prompt(two_nodes: Lab) -> Iterator[Terminal]:
    """Yield the prompt, left again by `exit`."""
    with two_nodes.terminal("cli") as screen:
        screen.expect(PROMPT)
        yield screen
        screen.type("exit\r")
        assert screen.end() == 0


def test_it_knows_nodes_and_links(prompt: Terminal) -> None:
    prompt.type("nodes\r")
    prompt.expect(r"etcd1 gw node1 node2 s1")
    prompt.type("links\r")
    prompt.expect(r"node1-eth0<->s1-eth\d \(OK OK\)")
    prompt.type("dump\r")
    prompt.expect(r"node2-eth0:192\.168\.8\.\d+")


def test_a_node_runs_a_command_with_names_of_others_in_it(prompt: Terminal) -> None:
    prompt.type("node1 ping -c1 -W2 node2\r")
    prompt.expect("1 received")
    prompt.expect(PROMPT)


def test_machines_of_the_underlay_all_reach_each_other(prompt: Terminal) -> None:
    prompt.type("pingall\r")
    prompt.expect(r"0% dropped", timeout_s=30)


def test_our_own_terms_are_there_too(prompt: Terminal) -> None:
    prompt.type("pods\r")
    prompt.expect(r"echo1 +node1 ")
    prompt.type("leases\r")
    prompt.expect(r"node2 ")


def test_link_down_really_cuts_and_up_heals(two_nodes: Lab, prompt: Terminal) -> None:
    assert two_nodes.pings("shell1", "10.255.255.254") is False, "control: nobody has this address"
    peer = two_nodes.pod("shell2")["address"]
    assert two_nodes.pings("shell1", peer)
    prompt.type("link s1 node1 down\r")
    prompt.expect(PROMPT)
    try:
        assert not two_nodes.pings("shell1", peer)
    finally:
        prompt.type("link s1 node1 up\r")
        prompt.expect(PROMPT)
    wait_until(lambda: two_nodes.pings("shell1", peer), timeout_s=20, what="pods reach each other again")
    assert "default via" in two_nodes.run("node1", "ip", "route"), "the routes came back with the link"


def test_second_prompt_is_refused_in_one_line(two_nodes: Lab, prompt: Terminal) -> None:
    answer = two_nodes.testbed("cli")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert len(answer.err.splitlines()) == 1
    prompt.type("nodes\r")
    prompt.expect("node1")


def test_lab_keeps_running_when_the_prompt_is_left(two_nodes: Lab) -> None:
    for leave in ("exit\r", "\x04"):
        with two_nodes.terminal("cli") as screen:
            screen.expect(PROMPT)
            screen.type(leave)
            assert screen.end() == 0
    assert two_nodes.json("status")["state"] == "ready"


def test_ctrl_c_interrupts_a_nodes_command_and_the_prompt_goes_on(prompt: Terminal, two_nodes: Lab) -> None:
    prompt.type("node1 sleep 3005\r")
    # Mininet passes Ctrl-C on to the node's shell, which forgets one that comes before the command runs.
    running = ("pgrep", "-fx", "sleep 3005")
    wait_until(lambda: two_nodes.exec("node1", *running).code == 0, timeout_s=30, what="the command runs")
    prompt.type("\x03")
    prompt.expect(PROMPT)
    prompt.type("nodes\r")
    prompt.expect("available nodes")


def test_an_open_prompt_does_not_keep_the_output_of_an_earlier_command_open(two_nodes: Lab) -> None:
    words = "sleep 3011"
    with two_nodes.running("exec", "node1", "--", *words.split()) as earlier:
        running = ("pgrep", "-fx", words)
        wait_until(lambda: two_nodes.exec("node1", *running).code == 0, timeout_s=30, what="the command runs")
        with two_nodes.terminal("cli") as screen:
            screen.expect(PROMPT)
            two_nodes.run("node1", "pkill", "-fx", words)
            earlier.communicate(timeout=20)
            screen.type("exit\r")
            assert screen.end() == 0


@pytest.mark.parametrize("node", ["node1", "s1"])
def test_a_shell_that_was_killed_is_replaced_with_the_next_command(node: str, prompt: Terminal, two_nodes: Lab) -> None:
    before = shells_of(node, two_nodes)
    for number in (1, 2):
        prompt.type(f"{node} echo shell {number}\r")
        prompt.expect(f"\nshell {number}")
        prompt.expect(PROMPT)
        kill_shells(shells_of(node, two_nodes) - before, two_nodes)


def test_a_command_ends_with_its_nodes_shell(prompt: Terminal, two_nodes: Lab) -> None:
    before = shells_of("node1", two_nodes)
    prompt.type("node1 sleep 3007\r")
    running = ("pgrep", "-fx", "sleep 3007")
    wait_until(lambda: two_nodes.exec("node1", *running).code == 0, timeout_s=30, what="the command runs")
    kill_shells(shells_of("node1", two_nodes) - before, two_nodes)
    prompt.expect(PROMPT)
    prompt.type("node1 echo another shell\r")
    prompt.expect("\nanother shell")
    prompt.expect(PROMPT)


def shells_of(node: str, lab: Lab) -> set[str]:
    return set(lab.exec("node2", "pgrep", "-f", f"bash .* testbed:{node}").out.split())


def kill_shells(found: set[str], lab: Lab) -> None:
    assert len(found) == 1
    lab.run("node2", "kill", "-9", *found)


@pytest.mark.slow
def test_up_with_the_prompt_takes_the_lab_down_on_leaving_it(no_lab: Lab) -> None:
    with no_lab.terminal("up", "two_nodes", "--lab", no_lab.name, "--cli") as screen:
        screen.expect(PROMPT, timeout_s=60)
        screen.type("nodes\r")
        screen.expect("node1")
        screen.type("exit\r")
        assert screen.end() == 0
    assert "no lab named" in no_lab.testbed("status").err


# A prompt that lives on, and pods in it


def said(lab: Lab, *lines: str) -> str:
    """Return what the prompt prints for a script on its standard input; it must live until the last line."""
    answer = lab.testbed("cli", stdin="\n".join([*lines, "node1 echo alive", "exit", ""]))
    assert answer.code == 0, str(answer)
    text = f"{answer.out}\n{answer.err}"
    assert re.search(r"^(testbed> )?alive", text, re.MULTILINE), str(answer)
    return text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (r'node1 printf "caf\351\n"', "caf\N{REPLACEMENT CHARACTER}"),
        ("dpctl show", "dpctl: the switches are Linux bridges"),
        ("source /nosuch", "source: /nosuch: No such file"),
        ("source", "source: no file"),
        ("source /proc/self/mem", "source: /proc/self/mem: "),
        ("iperf node1 nosuch", "no pod or node named nosuch"),
        ("iperf node1", "not two names (got 1;"),
        ("iperfudp 10x node1 node2", "not a bit rate (got 10x;"),
        ("xterm nosuch", "node 'nosuch' not in network"),
        ("switch nosuch stop", "invalid switch"),
        ("link node1 nosuch down", "not in network"),
        ("x", "usage: x"),
        ("x nosuch", "KeyError"),
        ("nosuch ls", "Unknown command: nosuch ls"),
        ("echo1", "Please enter a command for pod: echo1"),
        ("py 1/0", "division by zero"),
        ("time", ""),
        ("noecho", ""),
    ],
)
def test_every_failure_is_reported_by_the_prompt_which_survives(two_nodes: Lab, line: str, why: str) -> None:
    text = said(two_nodes, line)
    assert why in text
    assert "Traceback" not in text


def test_input_that_is_no_text_ends_nothing(two_nodes: Lab) -> None:
    with two_nodes.terminal("cli") as screen:
        screen.expect(PROMPT)
        screen.press(b"node1 echo \xe9\xff\r")
        screen.expect(PROMPT)
        screen.type("exit\r")
        assert screen.end() == 0


def test_iperf_gives_a_rate_between_machines_and_pods(two_nodes: Lab) -> None:
    text = said(two_nodes, "iperf", "iperf shell1 echo2", "iperfudp 1M node1 node2")
    first, second, udp = re.findall(r"Results: ([0-9.]+) ([MG])bit/s", text)
    assert float(first[0]) > 0
    assert float(second[0]) > 0
    assert 0.5 < float(udp[0]) < 1.5


def test_pods_are_hosts(two_nodes: Lab) -> None:
    peer = two_nodes.pod("echo2")["address"]
    text = said(
        two_nodes, "nodes", "shell1 ping -c1 -W2 echo2", "node1 ping -c1 -W2 echo2", "shell1 ping -c1 -W2 node2"
    )
    assert re.search(r"pods are: *\n.*echo2.*shell1", text)
    assert text.count(f"PING {peer}") == 2
    assert text.count("1 received") == 3


def test_ctrl_c_interrupts_a_pods_command_and_the_prompt_goes_on(prompt: Terminal, two_nodes: Lab) -> None:
    prompt.type("shell1 sleep 3009\r")
    running = ("pgrep", "-fx", "sleep 3009")
    wait_until(lambda: two_nodes.exec("shell1", *running).code == 0, timeout_s=30, what="the command runs")
    prompt.type("\x03")
    prompt.expect(PROMPT)
    wait_until(lambda: two_nodes.exec("shell1", *running).code == 1, timeout_s=10, what="the command has ended")
    prompt.type("nodes\r")
    prompt.expect("available nodes")
