"""`exec` and `shell`: a command in a pod or on a node behaves as it would on the user's own machine."""

import signal

import pytest

from testbed.control.questions import EXEC
from testbed.errors import TestbedError
from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.waiting import wait_until

SHELL_PROMPT = "[#$] $"
POD_AND_NODE = pytest.mark.parametrize("target", ["shell1", "node1"])


@POD_AND_NODE
def test_standard_input_arrives_and_output_comes_back(target: str, two_nodes: Lab) -> None:
    text = "first line\nsecond line without an end"
    assert two_nodes.exec(target, "cat", stdin=text).out == text


@POD_AND_NODE
def test_errors_stay_apart_from_output(target: str, two_nodes: Lab) -> None:
    answer = two_nodes.exec(target, "sh", "-c", "echo said; echo complained >&2")
    assert (answer.out, answer.err) == ("said\n", "complained\n")


@POD_AND_NODE
@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + signal.SIGKILL), ("kill -TERM $$", 128 + signal.SIGTERM)],
)
def test_exit_code_is_the_commands(target: str, command: str, code: int, two_nodes: Lab) -> None:
    assert two_nodes.exec(target, "sh", "-c", command).code == code


@POD_AND_NODE
def test_missing_program_is_exit_code_127(target: str, two_nodes: Lab) -> None:
    answer = two_nodes.exec(target, "no-such-program")
    assert answer.code == 127
    assert "no-such-program" in answer.err
    assert "Traceback" not in answer.err


@POD_AND_NODE
def test_a_command_that_no_program_can_receive_is_refused(target: str, two_nodes: Lab) -> None:
    # Only a client of the socket or of the API can send one: a shell's words have no NUL.
    with pytest.raises(TestbedError, match="a NUL character") as refused:
        two_nodes.handle.ask(EXEC, {"name": target, "argv": ["echo", "a\0b"]})
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("command", ["ip route add 192.0.2.1 dev eth0", "tc qdisc add dev eth0 root pfifo"])
def test_a_missing_right_of_a_container_points_to_the_privileged_shell(command: str, two_nodes: Lab) -> None:
    answer = two_nodes.exec("shell1", *command.split())
    assert answer.code != 0
    assert answer.err.splitlines()[-1].endswith(f"testbed shell, then ip netns exec shell1 {command}")
    assert two_nodes.testbed("shell", stdin=f"ip netns exec shell1 {command}\n").err == ""
    undo = command.replace(" add ", " del ").replace(" pfifo", "")
    assert two_nodes.testbed("shell", stdin=f"ip netns exec shell1 {undo}\n").code == 0


@pytest.mark.parametrize(
    ("target", "command"), [("shell1", "ip addr"), ("shell1", "false"), ("node1", "ip link show x")]
)
def test_no_warning_where_the_shell_would_do_the_same(target: str, command: str, two_nodes: Lab) -> None:
    assert "note: " not in two_nodes.exec(target, *command.split()).err


def test_kind_before_the_name_is_understood(two_nodes: Lab) -> None:
    assert two_nodes.exec("pod/shell1", "hostname").out == "shell1\n"


def test_options_of_the_command_are_left_alone(two_nodes: Lab) -> None:
    assert two_nodes.exec("shell1", "printf", "%s %s", "-c", "--lab=other").out == "-c --lab=other"


@POD_AND_NODE
def test_there_is_a_terminal_only_when_asked_for(target: str, two_nodes: Lab) -> None:
    assert two_nodes.exec(target, "test", "-t", "0").code == 1
    with two_nodes.terminal(
        "exec", "-it", target, "--", "sh", "-c", "test -t 0 && test -t 1 && echo on-terminal"
    ) as screen:
        screen.expect("on-terminal")
        assert screen.end() == 0


@POD_AND_NODE
def test_exit_code_comes_through_a_terminal_too(target: str, two_nodes: Lab) -> None:
    with two_nodes.terminal("exec", "-it", target, "--", "sh", "-c", "exit 7") as screen:
        assert screen.end() == 7


@POD_AND_NODE
def test_ctrl_c_on_a_terminal_interrupts_the_command_there(target: str, two_nodes: Lab) -> None:
    with two_nodes.terminal("exec", "-it", target, "--", "sh", "-c", "echo started; exec sleep 3001") as screen:
        screen.expect("started")
        screen.type("\x03")
        assert screen.end() == 128 + signal.SIGINT
    assert two_nodes.exec(target, "pgrep", "-f", "sleep 300[1]").code == 1


@POD_AND_NODE
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_command_ends_with_the_exec_that_started_it(target: str, number: signal.Signals, two_nodes: Lab) -> None:
    with two_nodes.running("exec", target, "--", "sh", "-c", "echo started; exec sleep 3002") as running:
        read_until(running.stdout, "started")
        running.send_signal(number)
        assert running.wait(30) == (130 if number == signal.SIGINT else -number)
    wait_until(
        lambda: two_nodes.exec(target, "pgrep", "-f", "sleep 300[2]").code == 1,
        timeout_s=20,
        what="no such process is left there",
    )


def test_ctrl_c_during_exec_leaves_no_traceback(two_nodes: Lab) -> None:
    with two_nodes.running("exec", "shell1", "--", "sh", "-c", "echo started; exec sleep 3003") as running:
        read_until(running.stdout, "started")
        running.send_signal(signal.SIGINT)
        running.wait(30)
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()


def test_shell_in_a_pod_is_interactive(two_nodes: Lab) -> None:
    with two_nodes.terminal("shell", "shell1") as screen:
        screen.expect(SHELL_PROMPT)
        screen.type("echo $((6 * 7)) on $(hostname)\r")
        screen.expect("42 on shell1")
        screen.type("exit 3\r")
        assert screen.end() == 3


def test_input_typed_before_the_shell_starts_is_not_lost(two_nodes: Lab) -> None:
    with two_nodes.terminal("shell", "shell1") as screen:
        screen.type("echo ahead-$((1+1)); exit 4\r")
        screen.expect("ahead-2")
        assert screen.end() == 4


@pytest.mark.parametrize("target", ["shell1", "node1"])
def test_shell_reads_a_script_from_a_pipe(target: str, two_nodes: Lab) -> None:
    answer = two_nodes.testbed("shell", target, stdin="echo $((6 * 7))\nexit 3\n")
    assert (answer.out.strip(), answer.code) == ("42", 3)


def test_shell_without_a_name_reaches_every_node_and_pod_by_ip_netns(two_nodes: Lab) -> None:
    addresses = [pod["address"] for pod in two_nodes.json("status")["pods"] if pod["name"] == "echo2"]
    with two_nodes.terminal("shell") as screen:
        screen.expect(SHELL_PROMPT)
        screen.type("ip netns exec node1 ip -o link show flannel0; echo done-$((1+1))\r")
        screen.expect("POINTOPOINT")
        screen.expect("done-2")
        screen.type("ip netns exec echo2 ip -o address show eth0; echo done-$((2+1))\r")
        screen.expect(addresses[0])
        screen.expect("done-3")
        screen.type("exit\r")
        screen.end()
