import pytest

from testbed.faults import catalogue
from testbed.faults.catalogue import FaultKind, NoSuchFault, Parameter, parse

EXAMPLE = FaultKind(
    "cable shake",
    (
        Parameter("A", "name"),
        Parameter("PERCENT", "number", least=0, most=100),
        Parameter("TIME", "seconds", "200ms", least=0.001),
        Parameter("ADDRESS", "address", ""),
    ),
    "an example of every kind of word",
)


@pytest.fixture(autouse=True)
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "KINDS", (*catalogue.KINDS, EXAMPLE))


def test_arguments_become_values_and_missing_ones_get_their_defaults() -> None:
    request = parse(["cable", "shake", "node1", "2.5"])
    assert request.kind is EXAMPLE
    assert request.values == ("node1", 2.5, 0.2, None)
    assert request.text == "cable shake node1 2.5"


@pytest.mark.parametrize(("word", "seconds"), [("5", 5), ("5s", 5), ("20ms", 0.02), ("2m", 120), ("+1h", 3600)])
def test_times_have_units(word: str, seconds: float) -> None:
    assert parse(["cable", "shake", "a", "1", word]).values[2] == seconds


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("agent", "no such fault (got agent; want agent kill, agent crashloop, agent stop, agent pause, agent hang)"),
        ("agnt kill node1", "did you mean agent kill?"),
        ("xyzzy", "want agent …, etcd …, link …"),
        ("agent kill", "agent kill: NODE is missing (want agent kill NODE)"),
        ("agent kill node1 node2", "too many words (got node1 node2; want agent kill NODE)"),
        ("cable shake a 101", "cable shake: PERCENT: got 101; want a number, 0 to 100"),
        ("cable shake a nan", "PERCENT: got nan"),
        ("cable shake a 1 -5s", "TIME: got -5s; want a time such as 200ms, 5s or 1h of 0.001 s or more"),
        ("cable shake a 1 soon", "TIME: got soon"),
        ("cable shake a 1 1 10.0.0", "ADDRESS: not an address (got 10.0.0"),
    ],
)
def test_wrong_arguments_are_reported_with_the_expected_ones(words: str, complaint: str) -> None:
    with pytest.raises(NoSuchFault) as error:
        parse(words.split())
    assert complaint in str(error.value)


def test_every_fault_has_a_name_of_its_own_and_optional_parameters_come_last() -> None:
    names = [kind.name for kind in catalogue.KINDS]
    assert len(set(names)) == len(names)
    for kind in catalogue.KINDS:
        optional = [parameter.default is not None for parameter in kind.parameters]
        assert optional == sorted(optional), kind.usage


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("link loss node1 s1 30", ("node1", "s1", 30.0)),
        ("link delay a b 100ms", ("a", "b", 0.1, 0.0)),
        ("link flap a b", ("a", "b", 10.0, 1.0)),
        ("partition a,b / c", (("a", "b"), "/", ("c",))),
        ("partition a", (("a",), "/", None)),
        ("clock jump node1 -1h", ("node1", -3600.0)),
        ("etcd compact", ()),
    ],
)
def test_the_faults_accept_common_spellings(words: str, values: tuple[object, ...]) -> None:
    assert parse(words.split()).values == values
