"""What the scripts that measure a lab by its command line share: the lab, its verbs, manifests, arguments."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
PYTHON = CLONE / ".venv" / "bin" / "python"
SCRIPT = Path(sys.argv[0]).name
LAB = f"{SCRIPT}-{os.getpid()}"
ENDING = (signal.SIGTERM, signal.SIGHUP)


def testbed(*words: str, stdin: str = "") -> str:
    """Run a verb on our lab; return its output. Ends the program if the verb fails."""
    done = subprocess.run(
        [PYTHON, "-m", "testbed", *words],
        env={**os.environ, "TESTBED_LAB": LAB},
        cwd="/",
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"error: testbed {' '.join(words)}: exit code {done.returncode}\n{done.stderr}{done.stdout}".rstrip())
    return done.stdout


def manifest(kind: str, name: str, spec: Mapping[str, object], **labels: str) -> str:
    """Return an object."""
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1"
    metadata = {"name": name, "labels": labels}
    return json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def together(manifests: Iterable[str]) -> str:
    """Return the objects as one stream."""
    return "\n---\n".join(manifests)


@contextmanager
def taken_down() -> Iterator[None]:
    """Take the lab down after the block, also when a signal ends it."""
    for number in ENDING:
        # As `nohup` wants it.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        # A signal that comes now waits: `down` must not end half-way.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        subprocess.run([PYTHON, "-m", "testbed", "down", "--lab", LAB], cwd="/", capture_output=True, check=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def run(cluster: str, measure: Callable[[int], None], changes: int) -> None:
    """Bring a lab of this cluster file up, measure, take it down; the script's argument replaces `changes`."""
    given = sys.argv[1:] or [str(changes)]
    if len(given) > 1 or not given[0].isdecimal() or not int(given[0]):
        print(f"error: scripts/{SCRIPT}: wrong arguments (got {' '.join(given)}; want [CHANGES])", file=sys.stderr)
        sys.exit(2)
    if os.geteuid() != 0:
        print(f"error: scripts/{SCRIPT}: needs root (want: sudo scripts/{SCRIPT})", file=sys.stderr)
        sys.exit(3)
    with taken_down():
        # By a name of its own: another user may have put a link at a known one, and this is root.
        with tempfile.NamedTemporaryFile("w", prefix=f"{LAB}-", suffix=".yaml") as file:
            file.write(cluster)
            file.flush()
            testbed("up", file.name, "--lab", LAB)
        measure(int(given[0]))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} processors, load {load}")
