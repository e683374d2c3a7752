"""What users of other tools type is answered with the verb that does it here, and each of these verbs exists."""

import re
import shlex

import click
import pytest

from testbed.command import cli
from testbed.command.command_line import verbs
from testbed.command.habits import GROUPS, HABITS

HABITS_OF_USERS = {
    # kubectl
    "cordon node1": "node drain NODE",
    "drain node1": "node drain NODE",
    "uncordon node1": "node uncordon NODE",
    "port-forward web 8080:80": "forward POD 8080:80",
    "create -f web.yaml": "apply -f FILE",
    "expose deployment web": "apply -f FILE",
    "edit deployment web": "apply -f FILE",
    "set image deployment/web nginx=nginx:1.16.1": "apply -f FILE",
    "label pods web tier=front": "apply -f FILE",
    "annotate deployment/web a=b": "apply -f FILE",
    "replace --force -f web.yaml": "apply -f FILE",
    "config set-context dev": "get pods -n NAMESPACE",
    "rollout status deployment/web": "get deployments --watch",
    "attach web": "logs POD --follow",
    "cp web:/etc/hosts .": "exec POD -- cat FILE",
    "explain pod": "init",
    "cluster-info": "status",
    "version": "--version",
    "help": "--help",
    "nodes": "get nodes",
    "svc": "get services",
    # docker
    "ps": "get pods",
    "ls": "status",
    "list": "status",
    "inspect web": "describe pod NAME",
    "rm web": "delete pod NAME",
    "kill web": "fault pod kill POD",
    "stop": "down",
    "start": "up",
    "run nginx": "up",
    "stats": "ui",
    "prune": "down --all",
    "info": "doctor",
    # containerlab
    "deploy -t lab.yaml": "up FILE",
    "redeploy": "down",
    "destroy": "down",
    "generate": "init",
    "save": "commands",
    "tools netem": "fault link delay A B TIME",
    # Kathará
    "lstart": "up FILE",
    "lclean": "down",
    "linfo": "status",
    "connect node1": "shell NODE",
    "vstart": "node add NAME",
    "wipe": "down --all",
    # Mininet
    "pingall": "ping",
    "pingpair": "ping SRC DST",
    "iperfudp": "iperf SRC DST --udp",
    "net": "graph --write lab.svg",
    "dump": "status",
    "xterm node1": "shell NODE",
    "link s1 node1 down": "fault link down A B",
    "py net.hosts": "cli",
    # and others
    "ssh node1": "shell NODE",
    "heal": "fault heal",
    "dashboard": "ui",
    "tcpdump -i any": "capture POD",
    "traceroute web": "trace POD POD",
    "node ls": "get nodes",
    "restart node node1": "restart agent NODE",
}


def answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str) -> str:
    monkeypatch.setattr("sys.argv", ["testbed", *shlex.split(words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    return line


@pytest.mark.parametrize(("typed", "command"), [*HABITS_OF_USERS.items()])
def test_habit_of_another_tool_is_answered_with_the_verb_here(
    typed: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answered(monkeypatch, capsys, typed)
    assert re.search(rf"testbed {re.escape(command)}(:|;|\)|$)", line), line
    assert "did you mean" not in line


def test_there_are_forty_habits_and_more() -> None:
    assert len(HABITS_OF_USERS) >= 40
    assert len(HABITS) >= 40


def test_no_habit_is_a_verb_of_ours() -> None:
    assert not set(HABITS) & set(verbs.commands)
    for words in GROUPS:
        group, word = words.split()
        found = verbs.commands[group]
        assert isinstance(found, click.Group)
        assert word not in found.commands


@pytest.mark.parametrize("command", sorted({command for known in HABITS.values() for command, _ in known}))
def test_advice_is_a_command_that_can_be_typed(command: str) -> None:
    words = shlex.split(command.replace(" N", " 2") if command.endswith(" N") else command)
    if words[-1] in ("--help", "--version"):
        return
    parser: click.Command = verbs
    while isinstance(parser, click.Group):
        parser = parser.commands[words.pop(0)]
    parser.make_context(parser.name or "", words)


def test_a_word_like_nothing_gets_ten_verbs_and_no_guess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answered(monkeypatch, capsys, "frobnicate")
    assert "want one of up, status, get, exec, shell, logs, trace, ping, check, down and " in line
