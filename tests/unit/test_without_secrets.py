"""A bundle shows which keys a Secret has, and no value."""

from testbed.testing.without_secrets import file_without_values, without_values

SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}\ndata: {b: aHVudGVyMg==}\n"


def test_a_file_without_secrets_stays_as_it_is() -> None:
    for text in (b"nodes: [node1] # my node\n", b"kind: Cluster # not a Secret\n"):
        assert file_without_values(text) == text


def test_a_file_with_a_secret_has_no_value_of_it() -> None:
    item = SECRET.strip().replace("\n", "\n  ")
    for secret in (SECRET, f"apiVersion: v1\nkind: List\nitems:\n- {item}\n"):
        shown = file_without_values(f"nodes: [node1]\n---\n{secret}".encode()).decode()
        assert "hunter2" not in shown
        assert "aHVudGVyMg" not in shown
        assert "a: left out" in shown
        assert "node1" in shown


def test_a_file_that_cannot_be_read_is_left_out() -> None:
    assert b"hunter2" not in file_without_values(f"{SECRET}---\n[".encode())


def test_only_secrets_lose_values() -> None:
    kept = {"kind": "ConfigMap", "data": {"a": "x"}}
    assert without_values(kept) == kept
    assert without_values({"kind": "Secret", "data": 5}) == {"kind": "Secret", "data": "left out"}
