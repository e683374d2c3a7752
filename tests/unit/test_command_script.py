"""The journal as a script."""

import json

from testbed.lab.command_script import JournalLine, read_changes, script


def change(at: float, node: str, command: str, why: str = "because", stdin: str | None = None) -> JournalLine:
    return JournalLine(at, node, tuple(command.split()), why, stdin)


def commands_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_changes_of_all_journals_come_in_the_order_in_which_they_were_made() -> None:
    text = script([change(2, "node1", "ip link set a up"), change(1, "lab", "ip link add a type bridge")], "x")
    assert commands_of(text) == [
        "ip netns add lab",
        "ip netns add node1",
        "ip -n lab link add a type bridge",
        "ip -n node1 link set a up",
    ]


def test_every_program_is_run_where_it_was() -> None:
    changes = [
        change(1, "node1", "sysctl -w net.ipv4.ip_forward=1"),
        change(2, "node1", "bridge link set dev a hairpin on"),
        change(3, "node1", "nft -f -", stdin="table ip t {\n}\n"),
    ]
    assert commands_of(script(changes, "x"))[1:] == [
        "ip netns exec node1 sysctl -w net.ipv4.ip_forward=1",
        "bridge -n node1 link set dev a hairpin on",
        "ip netns exec node1 nft -f - <<'END'",
        "table ip t {",
        "}",
        "END",
    ]


def test_one_machines_commands_are_as_one_types_them_there() -> None:
    text = script([change(1, "node1", "ip link set a up"), change(2, "node2", "ip link set b up")], "x", "node1")
    assert commands_of(text) == ["ip link set a up"]


def test_reason_stands_before_its_commands_once() -> None:
    changes = [change(at, "node1", f"ip link set {name} up", "they carry packets") for at, name in enumerate("ab")]
    assert script(changes, "x").count("# node1: they carry packets\n") == 1


def test_device_that_went_with_its_process_is_removed_before_it_is_made_again() -> None:
    made = "ip tuntap add dev flannel0 mode tun"
    again = commands_of(script([change(1, "node1", made), change(2, "node1", made)], "x", "node1"))
    assert [line.partition("  #")[0] for line in again] == [made, "ip link delete flannel0", made]
    deleted = [change(1, "node1", made), change(2, "node1", "ip link delete flannel0"), change(3, "node1", made)]
    assert commands_of(script(deleted, "x", "node1")) == [made, "ip link delete flannel0", made]


def test_words_that_a_shell_would_read_are_quoted() -> None:
    text = script([JournalLine(1, "node1", ("tc", "filter", "add", "basic match a;b"), "x", None)], "x", "node1")
    assert commands_of(text) == ["tc filter add 'basic match a;b'"]


def test_half_a_line_at_the_end_of_a_journal_is_left_out() -> None:
    line = json.dumps({"at": 1, "node": "n", "command": ["ip"], "input": None, "why": "w"})
    assert len(list(read_changes(f"{line}\n{line[:20]}"))) == 1
