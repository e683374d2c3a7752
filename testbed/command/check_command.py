"""`testbed check`, and what `up broken/NAME` does once the lab is up."""

from testbed.command.command_line import lab_option, output_option, verbs
from testbed.control.client import LabRecord, ask, find_lab
from testbed.control.questions import CHECK, EXERCISE
from testbed.exercises.catalogue import PREFIX, Exercise
from testbed.output.next_commands import next_commands


@verbs.command()
@lab_option
@output_option("json")
def check(lab: str | None, output: str | None) -> int:
    """Check the lab: every pod reaches every pod, with small and full-size packets; leases and routes agree.

    The judge of the exercises (up broken/NAME): it says what is wrong, not why. Exit code 0 when nothing is.
    """
    from testbed.output import tables as render

    record = find_lab(lab)
    answer = ask(record, CHECK)
    if output == "json":
        render.as_json(answer)
        return 0 if answer["well"] else 1
    rows: list[tuple[object, ...]] = []
    for one in answer["checks"]:
        lines = one["wrong"] or [""]
        rows += [(one["check"], "yes" if one["holds"] else "no", lines[0]), *(("", "", line) for line in lines[1:])]
    render.columns(("check", "holds", "what is wrong"), rows)
    print("\nall is well" if answer["well"] else "\nnot well yet")
    traces = [f"trace {one['trace']}" for one in answer["checks"] if one["trace"]]
    next_commands(record.name, *(["ping"] if answer["well"] else ["status", *traces[:1]]))
    return 0 if answer["well"] else 1


def begin(record: LabRecord, exercise: Exercise) -> None:
    """Break the lab that is up, and say what somebody sees who uses it."""
    done = ask(record, EXERCISE, name=exercise.name)
    since = "" if done["begun"] else f", on since {done['since']}"
    print(f"\nexercise {PREFIX}{exercise.name}{since}\n")
    print(f"  {exercise.symptom}\n")
    print("Find out why, and repair it with ordinary commands (ip, nft, ss, ps, kill …): `testbed exec NODE -- …`,")
    print("`testbed shell NODE`, and `testbed shell` for pods and switches. The judge says what is still wrong:")
    next_commands(record.name, "check")
