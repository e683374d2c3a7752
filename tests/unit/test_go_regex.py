"""`--iface-regex` finds what flannel finds with it, and refuses what Go refuses."""

import random
import re

import pytest

from agent.options.go_regex import compile_go_regex


@pytest.mark.parametrize(
    ("pattern", "found", "missed"),
    [
        (r"^eth[[:digit:]]$", "eth0", "ethx"),
        (r"^[[:^digit:]]+$", "eth", "eth0"),
        (r"^[[:alpha:]_]+\pN$", "en_p0", "enp"),
        (r"^\PN+$", "eth", "eth0"),
        (r"^\p{Lu}\p{^Lu}$", "Ab", "AB"),
        (r"^(?P<net>10)\.(?<rest>.*)\z", "10.1.2.3", "11.1.2.3"),
        (r"^\Q10.0.0.\E[0-9]+$", "10.0.0.7", "10x0.0.7"),
        (r"\Qa.b", "xa.b", "xaxb"),
        (r"(?U)^e.*0$", "eth0", "eth1"),
        (r"(?i)ETH0", "eth0", "eth1"),
        (r"a(?i)b|c$", "C", "Ab"),
        (r"(?i:E)th", "eth0", "ETH0"),
        (r"(?i)e(?-i)th", "Eth", "eTh"),
        (r"^(?i)[^e]$", "a", "E"),
        (r"^x{,2}$", "x{,2}", "xx"),
        (r"^x{2,3}?$", "xx", "x"),
        (r"^\x65\x{74}\150$", "eth", "et"),
        (r"^\w+\s\S$", "eth 0", "eth\v0"),
        (r"^[]a]$", "]", "b"),
        (r"^[^]a]$", "b", "]"),
        (r"^[a\-z]$", "-", "b"),
        (r"^[--/]$", ".", "0"),
        (r"^[[a&&b||c~~]$", "&", "d"),
        (r"^*eth", "eth", "et"),
        (r"^\d$", "0", "٣"),
        (r"(?m)^b$", "a\nb", "ab"),
        (r"(?s)a.b", "a\nb", "ab"),
        (r"a$", "a", "a\n"),
        (r"{", "{", "x"),
        (r"", "anything", None),
    ],
)
def test_what_go_takes_finds_the_same(pattern: str, found: str, missed: str | None) -> None:
    regex = compile_go_regex(pattern)
    assert regex.search(found)
    assert missed is None or not regex.search(missed)
    assert regex.pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)", "invalid or unsupported Perl syntax: (?=a"),
        ("(?!a)", "invalid or unsupported Perl syntax"),
        ("(?<=a)b", "invalid or unsupported Perl syntax"),
        ("(?>a)", "invalid or unsupported Perl syntax"),
        ("(?#a)", "invalid or unsupported Perl syntax"),
        ("(?P=a)", "invalid or unsupported Perl syntax"),
        ("(?x)a", "invalid or unsupported Perl syntax"),
        ("(?L)a", "invalid or unsupported Perl syntax"),
        ("(?P<a b>c)", "invalid named capture"),
        ("(?P<a>b)(?P<a>c)", "duplicate capture group name: a"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        (r"a\Z", r"invalid escape sequence: \Z"),
        (r"\C", r"invalid escape sequence: \C"),
        (r"\E", r"invalid escape sequence: \E"),
        (r"\u0041", r"invalid escape sequence: \u"),
        (r"\N{DIGIT ONE}", r"invalid escape sequence: \N"),
        ("a\\", "trailing backslash"),
        (r"\x{110000}", r"invalid escape sequence: \x"),
        ("a**", "invalid nested repetition operator: *"),
        ("a++", "invalid nested repetition operator: +"),
        ("a*??", "invalid nested repetition operator: ?"),
        ("*a", "missing argument to repetition operator: *"),
        ("(|+)", "missing argument to repetition operator: +"),
        ("a{1001}", "invalid repeat count: {1001}"),
        ("a{3,2}", "invalid repeat count: {3,2}"),
        ("(a", "missing closing )"),
        ("a)", "unexpected )"),
        ("[a", "missing closing ]"),
        ("[]", "missing closing ]"),
        ("[a-", "missing closing ]"),
        ("[z-a]", "invalid character class range: z-a"),
        ("[[:foo:]]", "invalid character class range: [:foo:]"),
        (r"\p{Greek}", r"invalid character class range: \p{Greek}, want a category"),
        (r"\pX", "invalid character class range"),
    ],
)
def test_what_go_refuses_is_refused_by_name(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        compile_go_regex(pattern)


def test_every_input_is_accepted_or_refused_with_a_reason() -> None:
    pieces = [*"ab0.*+?()[]{}|^$\\-:,<>=!#&~P", "(?", "(?P<n>", "[[:", ":]]", r"\p{L", r"\Q", r"\E", "{2}", r"\x4", "ü"]
    rng = random.Random(5)
    outcomes = []
    for _ in range(20_000):
        pattern = "".join(rng.choices(pieces, k=rng.randint(0, 8)))
        try:
            compile_go_regex(pattern).search("eth0")
            outcomes.append("taken")
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes.count("taken") > 1000
    assert all(outcome.isprintable() and outcome for outcome in outcomes)
    assert not [outcome for outcome in outcomes if "too large" in outcome]
