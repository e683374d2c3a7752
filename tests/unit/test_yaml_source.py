"""YAML is read as kubectl reads it: what is text there is text here, and what is written can be read again."""

import math
import random

import pytest

from testbed.cluster.yaml_source import dump_documents, plain_value, read_documents


def value_of(text: str) -> object:
    (document,), problems = read_documents(f"v: {text}\n".encode(), "f")
    assert problems == []
    return document.value["v"]


@pytest.mark.parametrize(
    "text",
    [
        *("12:30", "1:20", "-1:20", "190:20:30", "1:20.5", "00:00:00"),
        *("2024-01-01", "2024-01-01T12:00:00Z", "2001-12-14 21:59:43"),
        *("_1", "0o8", "0b2", "0x", "0xg", "1e", "1.2.3", "+", ".", "..", "1e400", ".5_0", "192.168.8.1", "10Mi"),
        *("tRUE", "yEs", "nULL", "Y_", "oN", ".Inf_", "inf", "nan", "infinity", "١٢"),
    ],
)
def test_what_kubernetes_reads_as_text_is_text(text: str) -> None:
    assert value_of(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")),
        *((text, False) for text in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")),
        *((text, None) for text in ("~", "null", "Null", "NULL", "")),
        *(("0o7", 7), ("010", 8), ("0x1F", 31), ("0b101", 5), ("-0b101", -5), ("-0x10", -16), ("+1", 1), ("0", 0)),
        *(("1_000", 1000), ("0x_1F", 31), ("08", 8), ("1e3", 1000), ("1.0", 1), ("-.5", -0.5), (".5", 0.5), ("5.", 5)),
        *((".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf)),
    ],
)
def test_what_kubernetes_reads_as_a_truth_or_a_number_is_one(text: str, value: object) -> None:
    found = value_of(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 400, "0x" + "f" * 5000, "1_" * 3000])
def test_a_number_without_end_is_no_reason_to_stop(text: str) -> None:
    value_of(text)


def test_a_merge_key_fills_in_only_keys_missing_from_the_mapping() -> None:
    text = b"a: &a {x: 1, y1: 2}\nb: &b {x: 3, z: 4}\nc: {<<: *a, x: 5}\nd: {x: 6, <<: [*a, *b]}\ne: {'<<': 7}\n"
    (document,), problems = read_documents(text, "f")
    assert problems == []
    assert document.value["c"] == {"x": 5, "y1": 2}
    assert document.value["d"] == {"x": 6, "y1": 2, "z": 4}
    assert document.value["e"] == {"<<": 7}
    assert document.position(("c", "y1")).line == 1
    assert document.position(("c", "x")).line == 3


@pytest.mark.parametrize("text", ["a: {<<: 1}", "a: {<<: [1]}", "a: {<<: [[]]}", "a: &a {<<: *a}", "a: {<<: }"])
def test_a_merge_key_of_something_else_is_one_problem(text: str) -> None:
    _, problems = read_documents(text.encode(), "f")
    assert len(problems) == 1
    assert "<<" in problems[0].what or "own anchor" in problems[0].what


def test_merges_of_merges_do_not_multiply() -> None:
    lines = ["m0: &m0 {k: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}" for n in range(1, 25)]
    (document,), problems = read_documents("\n".join(lines).encode(), "f")
    assert problems == []
    assert document.value["m24"] == {"k": 1}


def test_an_anchor_may_be_given_again_and_every_tag_of_yaml_is_honoured() -> None:
    (document,), problems = read_documents(b"a: &x 1\nb: &x 2\nc: *x\nd: !!str 5\ne: !!int '5'\nf: !!map {}\n", "f")
    assert problems == []
    assert document.value == {"a": 1, "b": 2, "c": 2, "d": "5", "e": 5, "f": {}}


def test_whatever_is_written_reads_the_same() -> None:
    letters = "yYnNoOfFtTeE~01278xb_.:+-<a "
    rng = random.Random(7)
    texts = ["".join(rng.choices(letters, k=rng.randint(0, 5))) for _ in range(3000)] + ["yes", "off", "1e3", "0o7"]
    (document,), problems = read_documents(dump_documents([{"texts": texts}]).encode(), "f")
    assert problems == []
    assert document.value["texts"] == texts
    assert any(plain_value(text) != text for text in texts)
