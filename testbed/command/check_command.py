"""`testbed check` and `testbed hint`, and the second part of `up exercise/N`."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from testbed.command.command_line import lab_option, one_lab_or_all, output_option, verbs
from testbed.control.client import LabRecord, ask, find_lab, running_labs
from testbed.control.questions import CHECK, EXERCISE, HINT
from testbed.errors import TestbedError
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.faults import CheckAnswer
    from testbed.exercises.catalogue import Exercise

WHAT_TO_DO = (
    "Find out why, and repair it with ordinary commands (ip, nft, ss, ps, kill, …): `testbed exec NODE -- …`, "
    "`testbed shell NODE`, and `testbed shell` for pods and switches. `check` shows what is still wrong, `hint` where "
    "to look:"
)
WIDTH = 78
"""Columns of a student's text, on any terminal."""


@verbs.command()
@lab_option
@click.option("--all", "everything", is_flag=True, help="Every lab that runs, a line for each: a class.")
@output_option("json")
def check(lab: str | None, everything: bool, output: str | None) -> int:
    """Check that every pod reaches every other, with small and full-size packets, that leases and routes agree, and
    that Services and names work.

    The judge of the exercises (up exercise/N): it names the problems, not their causes. Exit code 1 if a check failed.
    """
    from testbed.output import tables as render

    one_lab_or_all(lab, everything)
    if everything:
        return _check_all(output)
    record = find_lab(lab)
    answer = ask(record, CHECK)
    if output == "json":
        render.as_json(answer)
        return 0 if answer["well"] else 1
    render.columns(
        ("check", "holds", "problems"),
        ((one["check"], "yes" if one["holds"] else "no", "\n".join(one["wrong"])) for one in answer["checks"]),
    )
    print(f"\n{_summary(answer)}")
    for fault in answer["faults"]:
        render.say(fault)
    traces = [f"trace {one['trace']}" for one in answer["checks"] if one["trace"]]
    hint = ["hint"] if answer["exercise"] else ["fault heal"] if answer["faults"] else []
    next_commands(record.name, *(_after(answer) if answer["well"] else ["status", *traces[:1], *hint]))
    return 0 if answer["well"] else 1


def _summary(answer: "CheckAnswer") -> str:
    failed = sum(not one["holds"] for one in answer["checks"])
    if failed:
        return f"{failed} of {len(answer['checks'])} checks failed"
    exercise = answer["exercise"]
    return f"all checks passed: {exercise['name']} is solved" if exercise else "all checks passed"


def _after(answer: "CheckAnswer") -> Sequence[str]:
    """Return what follows a healthy lab: the next exercise, if this was one."""
    if not answer["exercise"]:
        return ["ping"]
    from testbed.exercises.catalogue import EXERCISES

    names = list(EXERCISES)
    following = names[names.index(answer["exercise"]["name"]) + 1 :]
    return ["down", *(f"up {name}" for name in following[:1])]


def _graded(answer: "CheckAnswer") -> tuple[object, ...]:
    passed = f"{sum(one['holds'] for one in answer['checks'])}/{len(answer['checks'])}"
    if (exercise := answer["exercise"]) is None:
        return answer["lab"], "", "", passed, "", ""
    return answer["lab"], exercise["name"], exercise["seed"], passed, exercise["hints"], exercise["since"]


def _check_all(output: str | None) -> int:
    """Check every lab; one that does not answer is unhealthy."""
    from testbed.output import tables as render

    answers: list[CheckAnswer] = []
    failures = []
    for record in running_labs() or [find_lab(None)]:
        try:
            answers.append(ask(record, CHECK))
        except TestbedError as failure:
            failures.append(str(failure))
    if output == "json":
        render.as_json(answers)
    else:
        render.columns(
            ("lab", "exercise", "seed", "checks", "hints", "since"),
            map(_graded, answers),
        )
    if failures:
        raise TestbedError("\n".join(failures))
    return 0 if all(answer["well"] for answer in answers) else 1


@verbs.command()
@lab_option
@output_option("json")
def hint(lab: str | None, output: str | None) -> None:
    """Print the next hint of the current exercise: three in all, the last one almost the answer."""
    from testbed.output import tables as render

    record = find_lab(lab)
    answer = ask(record, HINT)
    if output == "json":
        return render.as_json(answer)
    print(f"{answer['exercise']}, hint {answer['number']} of {answer['of']}:\n\n{_indented(answer['hint'])}")
    return next_commands(record.name, "check")


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def begin(record: LabRecord, exercise: "Exercise", seed: int) -> None:
    """Inject the exercise's faults, and print its user's complaint."""
    done = ask(record, EXERCISE, name=exercise.name, seed=seed)
    since = "" if done["begun"] else f", started {done['since']}"
    variant = f", seed {seed}" if seed else ""
    print(f"\n{exercise.name} (level {exercise.level}{variant}){since}\n")
    print(f"{_indented(done['complaint'])}\n")
    print(textwrap.fill(WHAT_TO_DO, WIDTH))
    next_commands(record.name, "check", "hint")
