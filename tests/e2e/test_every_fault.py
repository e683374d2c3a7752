"""Each fault of the catalogue once: it is injected, says what it did and how it ends, and the lab is in order again."""

import time
from collections.abc import Iterator

import pytest

from testbed.control.questions import CHECK, FAULT
from testbed.faults.catalogue import KINDS
from testbed.places import TOPOLOGIES
from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle

pytestmark = pytest.mark.slow
READY_LIMIT_S = 40.0

EXAMPLES = {
    "agent kill": "node1",
    "agent crashloop": "node1 2 200ms",
    "agent stop": "node1",
    "agent pause": "node1",
    "agent hang": "node1",
    "etcd kill": "etcd1",
    "etcd stop": "leader",
    "etcd pause": "etcd1",
    "etcd partition": "etcd1",
    "etcd wipe": "etcd1",
    "etcd quota": "etcd1",
    "etcd snapshot": "etcd1",
    "etcd restore": "etcd1",
    "etcd compact": "",
    "link down": "node1 s1",
    "link flap": "node1 s1 2 200ms",
    "link rate": "node1 s1 5",
    "link loss": "node1 s1 20",
    "link delay": "node1 s1 20ms 5ms",
    "link duplicate": "node1 s1 20",
    "link corrupt": "node1 s1 20",
    "link reorder": "node1 s1 20",
    "partition": "node1,node2 / node3",
    "oneway": "node1 / node2",
    "lease revoke": "node1",
    "lease delete": "node1",
    "lease steal": "node1",
    "device delete": "node1",
    "rules flush": "node1",
    "disk full": "node1",
    "clock jump": "node1 -1h",
    "certificate expire": "node1",
    "certificate rotate": "node1",
    "node crash": "node1",
    "node reboot": "node1 500ms",
    "node readdress": "node1 192.168.8.150",
    "pod kill": "shell1",
    "dns kill": "",
    "dns stop": "",
    "dns pause": "",
}


@pytest.fixture(scope="module")
def lab(new_lab: NewLab) -> Iterator[LabHandle]:
    """Start three nodes with a pod each."""
    with new_lab((TOPOLOGIES / "faults.yaml").read_text()) as handle:
        yield handle


def test_every_fault_of_the_catalogue_has_an_example_here() -> None:
    assert set(EXAMPLES) == {kind.name for kind in KINDS}


def all_is_well(lab: LabHandle) -> None:
    status = lab.status()
    assert status["state"] == "ready", status
    assert [str(ping) for ping in lab.ping_all() if ping.lost] == []
    assert [one for one in lab.ask(CHECK)["checks"] if not one["holds"]] == []


LONGER_THAN_A_LEASE_S = 8.0


@pytest.mark.parametrize("text", ["agent stop node1", "agent pause node1", "partition node1", "node crash node1"])
def test_healing_is_over_when_all_is_ready_again_however_long_it_lasted(text: str, lab: LabHandle) -> None:
    lab.wait_ready(READY_LIMIT_S)
    with lab.fault(text):
        time.sleep(LONGER_THAN_A_LEASE_S)
    all_is_well(lab)


def test_a_fault_that_ends_by_itself_is_on_until_all_is_ready_again(lab: LabHandle) -> None:
    lab.wait_ready(READY_LIMIT_S)
    done = lab.ask(FAULT, {"words": ["node", "crash", "node2"], "lasts_s": 1.0})
    lab.wait_until(lambda: not lab.faults(), READY_LIMIT_S, "it is over")
    all_is_well(lab)
    said = [event["reason"] for event in lab.events() if event["object"] == f"fault/{done['number']}"]
    assert said == ["Injected", "Healed"]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_fault_reports_its_effect_and_its_end_and_is_over_when_healed(kind: str, lab: LabHandle) -> None:
    lab.wait_ready(READY_LIMIT_S)
    text = f"{kind} {EXAMPLES[kind]}".strip()
    with lab.fault(text) as done:
        assert done["fault"] == text
        assert done["did"]
        assert done["undone"].startswith(("by ", "never: "))
        on = [fault["fault"] for fault in lab.faults()]
        # One that ends by itself may have done so.
        assert on == [text] if done["on"] and "by itself in" not in done["undone"] else text not in on or done["on"]
    assert lab.faults() == []
    if done["on"]:
        all_is_well(lab)  # at once: healing is over when what was broken is ready again
        return
    lab.wait_ready(READY_LIMIT_S)
    lab.wait_until(
        lambda: all(not ping.lost for ping in lab.ping_all()), READY_LIMIT_S, "every pod reaches every other"
    )
