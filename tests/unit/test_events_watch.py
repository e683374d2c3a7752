"""What `events --watch` prints at each look: the lab forgets its oldest events while it notes new ones."""

import pytest
from click.testing import CliRunner

from testbed.command import workload_commands
from testbed.command.command_line import verbs
from testbed.command.workload_commands import new_events

KEPT = [{"at": f"2026-01-01T00:00:{number:02}Z", "reason": "Pulled"} for number in range(10)]


@pytest.mark.parametrize(
    ("shown", "found", "new"),
    [
        ([], [], []),
        ([], KEPT[:3], KEPT[:3]),
        (KEPT[:3], KEPT[:3], []),
        (KEPT[:3], KEPT[:5], KEPT[3:5]),
        (KEPT[:5], KEPT[2:7], KEPT[5:7]),
        (KEPT[:5], KEPT[4:9], KEPT[5:9]),
        (KEPT[:5], KEPT[5:10], KEPT[5:10]),
        (KEPT[:5], [], []),
        ([KEPT[0]] * 3, [KEPT[0]] * 4, [KEPT[0]]),
        ([KEPT[0], *KEPT[:3]], KEPT[:4], KEPT[3:4]),
    ],
)
def test_only_events_that_came_since_are_printed(shown: list[object], found: list[object], new: list[object]) -> None:
    assert list(new_events(shown, found)) == new


def test_a_watch_prints_that_there_are_no_events_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[], [], [], KEPT[:1], KEPT[:1]])

    def ask(*_: object, **__: object) -> object:
        for found in looks:
            return found
        raise KeyboardInterrupt

    monkeypatch.setattr(workload_commands, "find_lab", lambda _: None)
    monkeypatch.setattr(workload_commands, "ask", ask)
    monkeypatch.setattr(workload_commands, "WATCH_PERIOD_S", 0)
    done = CliRunner().invoke(verbs, ["events", "--watch", "-o", "json"])
    assert [done.output.count(word) for word in ('"List"', "Pulled")] == [2, 1]
