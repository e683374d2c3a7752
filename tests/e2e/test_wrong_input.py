"""What is wrong on the command line or in a file: lines that start with `error: `, and the documented exit code."""

from pathlib import Path

import pytest

from tests.e2e.command import Answer, run_verb
from tests.e2e.lab import Lab, fresh_name

USAGE, FAILED = 2, 1

BAD_CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: bad}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes:
  node1: {ip: 192.168.8.227, subnet: 10.1.46.0/24}
  node2: {ipp: 192.168.8.228}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: node9
  containers: [{name: web, image: "ngnix:1.25"}]
"""


def complaints(answer: Answer) -> list[str]:
    """Return the error lines; there must be nothing else on standard error."""
    lines = answer.err.splitlines()
    assert "Traceback" not in answer.err + answer.out, answer
    assert lines, answer
    assert [line for line in lines if not line.startswith("error: ")] == [], answer
    return lines


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("statsu", "did you mean status?"),
        ("nonsense-verb", "no such verb"),
        ("status --nonsense", "--nonsense"),
        ("status -o xml", "xml"),
        ("get", "Missing argument"),
        ("get podz", "did you mean pod"),
        ("describe leases web", "no such kind: leases (want nodes, pods, "),
        ("exec", "Missing argument"),
        ("exec client", "no command"),
        ("ping client", "want both SRC and DST"),
        ("ping -c 0", "0"),
        ("iperf client", "Missing argument"),
        ("iperf a b -t 0", "0"),
        ("logs x --tail -2", "-2"),
        ("restart agent", "want NODE… or --all"),
        ("restart agent node1 --all", "want NODE… or --all"),
        ("restart etcd", "no such verb"),
        ("validate", "Missing argument"),
        ("validate nosuch", "no such cluster"),
        ("validate /no/such/file.yaml", "No such file"),
        ("validate /", "directory"),
        ("validate /dev/null", "error: /dev/null"),
        ("up nosuch", "no such cluster"),
        ("up /no/such/file.yaml", "No such file"),
        ("up two_nodes more", "more"),
        ("up --nodes 0", "want 1 to"),
        ("up --nodes many", "many"),
        ("up --pods-per-node 2", "--nodes"),
        ("up two_nodes --nodes 2", "two_nodes"),
        ("up two_nodes --no-agent node7", "node7"),
        ("up two_nodes --lab ../etc", "--lab"),
        ("up two_nodes --lab Upper", "--lab"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words: str, part: str) -> None:
    answer = run_verb(*words.split())
    (line,) = complaints(answer)
    assert part in line
    assert answer.code == USAGE


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("exec nobody -- true", "nobody"),
        ("exec -c nothing shell1 -- true", "nothing"),
        ("shell nobody", "nobody"),
        ("logs nobody", "nobody"),
        ("logs shell1 -c nothing", "nothing"),
        ("logs gw", "gw"),
        ("get pods nobody", "nobody"),
        ("get node/nobody", "nobody"),
        ("describe pod nobody", "nobody"),
        ("describe pod node1", "node1"),
        ("describe node shell1", "shell1"),
        ("ping nobody shell1", "nobody"),
        ("ping shell1 nobody", "nobody"),
        ("ping shell1 10.0.0.256", "10.0.0.256"),
        ("iperf shell1 nobody", "nobody"),
        ("restart agent nobody", "nobody"),
        ("restart agent shell1", "shell1"),
    ],
)
def test_an_unknown_object_is_named_in_one_line(words: str, part: str, two_nodes: Lab) -> None:
    answer = two_nodes.testbed(*words.split())
    (line,) = complaints(answer)
    assert part in line
    assert answer.code == FAILED


def test_missing_terminal_is_reported_before_anything_is_run(two_nodes: Lab) -> None:
    answer = two_nodes.testbed("exec", "-it", "shell1", "--", "touch", "/tmp/was-run")
    assert answer.code == USAGE
    assert len(complaints(answer)) == 1
    assert two_nodes.exec("shell1", "test", "-e", "/tmp/was-run").code == 1


def test_lab_that_does_not_run_is_named(two_nodes: Lab) -> None:
    answer = run_verb("status", "--lab", "no-such-lab")
    (line,) = complaints(answer)
    assert answer.code == FAILED
    assert "no-such-lab" in line
    assert two_nodes.name in line, "the ones that run are listed"


@pytest.mark.parametrize("verb", ["validate", "up"])
def test_all_mistakes_of_a_file_are_reported_at_once_and_nothing_is_created(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD_CLUSTER)
    lab = fresh_name("bad")
    answer = run_verb(verb, str(file), *(("--lab", lab) if verb == "up" else ()))
    lines = complaints(answer)
    assert answer.code == USAGE
    for number, part in ((7, "10.1.46.0/24"), (8, "ipp"), (14, "node9"), (15, "ngnix:1.25")):
        assert [line for line in lines if line.startswith(f"error: {file}:{number}:") and part in line], (part, answer)
    assert not Path("/run/testbed", lab).exists()


def test_file_of_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bytes.yaml"
    file.write_bytes(bytes(range(256)))
    answer = run_verb("validate", str(file))
    assert complaints(answer)
    assert answer.code == USAGE


def test_output_that_nobody_reads_any_more_is_no_traceback(two_nodes: Lab) -> None:
    with two_nodes.running("get", "pods", "-o", "json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.wait(30)
        assert process.stderr.read() == b""


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("up", "--help"), ("restart", "agent", "--help")])
def test_help_is_plain_text_on_standard_output(words: tuple[str, ...]) -> None:
    answer = run_verb(*words)
    assert answer.out.startswith("Usage: testbed")
    assert answer.err == ""
