"""Terminal output of a bench run: a bar while it runs, then tables and their meaning."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from testbed.bench.plan import BenchPlan, BenchStep
from testbed.bench.report import goal_line, median_rows, ratio_rows, round_line
from testbed.bench.results import Round, metrics_of, why_not_counted
from testbed.control.answers.bench import BenchAnswer, BenchRound
from testbed.output.tables import BAD_COLOUR, GOOD_COLOUR, matrix, say


class Bar:
    """A bar with the current step on a terminal; elsewhere one line per round.

    Written to standard error, so that standard output has only the result.
    """

    def __init__(self, plan: BenchPlan) -> None:
        self._plan = plan
        self._console = Console(stderr=True, highlight=False, markup=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task: TaskID | None = None
        self._done_s = 0.0
        self._coming_s = 0.0

    def __enter__(self) -> "Bar":
        if self._console.is_terminal:
            self._task = self._progress.add_task("making the lab", total=self._plan.expected_s)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, step: BenchStep) -> None:
        """Show the next step."""
        self._done_s, self._coming_s = self._done_s + self._coming_s, step.expected_s
        if self._task is not None:
            what = step.measurement.title if step.measurement else "switching to the path"
            text = f"round {step.round} of {self._plan.rounds}  {step.path.name:<8} {what:<23}"
            self._progress.update(self._task, completed=self._done_s, description=text)

    def round(self, one: Round) -> None:
        """Show a finished round."""
        reason = why_not_counted(one, self._plan.measurements)
        doubt = f" (does not count: {reason})" if reason else ""
        first = round_line(one.values, metrics_of(self._plan.measurements)[0])
        self._console.print(f"round {one.number} of {self._plan.rounds}: {first}{doubt}", soft_wrap=True)


def show(result: BenchAnswer, *, drawn: bool) -> None:
    """Print the whole result; `drawn`: a picture of it follows."""
    machine, names = result["machine"], [path["name"] for path in result["paths"]]
    counted, done = result["rounds_counted"], len(result["rounds"])
    matrix(("median", "unit", *names), median_rows(result), keys=2, numbers=True)
    print()
    for reference in result["ratios"]:
        if len(names) > 1:
            matrix((f"compared with {reference}", *names), ratio_rows(result, reference), numbers=True)
            print()
    for path in result["paths"]:
        say(f"{path['name']}: {path['description']}")
    say("forward: from node1's pod to node2's; latency: half of a round trip; agents' CPU: of both agents together")
    rounds = "1 round" if done == 1 else f"{done} rounds"
    where = f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}"
    took = f"{result['took_s']:.0f} s on {where}, load {_loads(result['rounds'])}"
    say(f"{rounds} of {result['seconds']} s a measurement in {took}")
    for one in result["rounds"]:
        if not one["counts"]:
            say(f"round {one['number']} does not count: {one['why_not']}", BAD_COLOUR)
    if not counted:
        text = "no round counts: the numbers above are of all rounds, and no goal is judged (run it on a quiet machine)"
        say(text, BAD_COLOUR)
    for failure in result["failures"]:
        where = f"round {failure['round']}, {failure['path']}, {failure['measurement']}"
        say(f"{where}: {failure['error']}", BAD_COLOUR)
    for goal in result["goals"]:
        say(goal_line(goal), GOOD_COLOUR if goal["reached"] else BAD_COLOUR)
    more = "" if result["rounds"] and drawn else " --plot bench.png"
    print(f"\nnext:\n  sudo testbed bench --rounds {2 * result['rounds_wanted']}{more}")


def _loads(rounds: Sequence[BenchRound]) -> str:
    loads = [one["load"] for one in rounds]
    return f"{min(loads):.1f} to {max(loads):.1f}"
