"""A running lab's side of `logs`: finds the requested logs, and shows them on the client's output."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from testbed.cluster.object_key import key_of
from testbed.control.answers.lab import EndedAnswer
from testbed.control.programs import run_for_client
from testbed.control.server import Request
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.node import LabNode
from testbed.plain_files import plain
from testbed.pods.container_log import times_of
from testbed.pods.kept_logs import log_of_deleted
from testbed.pods.log_runs import LogPart
from testbed.pods.pod import Pod
from testbed.pods.timed_log import TimedLogs, TimedSource
from testbed.supervisor.lab import Lab

OWN_LOGS = ("lab", "dns")
"""Logs besides those of pods and machines."""
LARGEST_LOG = 1 << 30
"""Bytes; no log grows this large."""

SEVERAL_LOGS = r"""
lines=$1 follow=$2
shift 2
part() {
    cat -- ${3:+"$3"} "$4" | tail --bytes=+"$1" | head --bytes="$2" | tail --lines="$lines"
}
show() {
    if [ "$3" ]; then part "$2" "$3" "$4" "$5"; else tail -q --lines="$lines" $follow -- "$5"; fi |
        if [ "$1" ]; then sed --unbuffered "s#^#[$1] #"; else cat; fi
}
while [ $# -gt 0 ]; do
    if [ "$follow" ]; then show "$@" & else show "$@"; fi
    shift 5
done
wait
"""
"""Words: lines, -F or nothing; then five for each log: label; first byte, size, predecessor of a part; the file."""


class LogSource(NamedTuple):
    """One log, or a part of one."""

    label: str
    """`pod/web/echo`, or a machine's name."""
    log: Path | LogPart


class LogVerbs:
    """The verb, and its dependencies."""

    def __init__(self, lab: Lab, target: Callable[[str], Pod | LabNode | str]) -> None:
        """`target` resolves a name. Raises TestbedError."""
        self._lab = lab
        self._state = lab.state
        self._target = target

    def show(self, request: Request, names: Sequence[str]) -> EndedAnswer:
        """Show the logs of pods, agents, etcd or the lab on the client's stdout."""
        sources = [source for name in names for source in self._sources(request, name)]
        written = [source for source in sources if _is_written(source.log)]
        if not written:
            raise TestbedError("\n".join(f"{source.label}: no output yet" for source in sources))
        follow, labels = (request.argument(name, bool, False) for name in ("follow", "prefix"))
        tail, since = request.argument("tail", int), request.argument("since", float)
        timestamps = request.argument("timestamps", bool, False)
        if timestamps or since is not None:
            if unknown := [source.label for source in written if not _has_times(source.log)]:
                raise TestbedError(f"no times of lines are kept of {', '.join(unknown)} (want: a running pod)")
            timed = TimedLogs(
                sources=[_timed(source, has_label=labels) for source in written],
                lines=tail,
                since_ns=int((since or 0) * 10**9),
                timestamps=timestamps,
                follow=follow,
            )
            return run_for_client(request, timed.command())
        return run_for_client(request, show_command(written, tail, follow=follow, labels=labels))

    def _sources(self, request: Request, name: str) -> list[LogSource]:
        """Return the logs of one name. Raises TestbedError."""
        container = request.argument("container", str)
        every, previous = (request.argument(which, bool, False) for which in ("all_containers", "previous"))
        without_containers = {*self._state.underlay.machines, *OWN_LOGS} - {*self._state.pods.names()}
        if name in without_containers and (container is not None or every or previous):
            raise InvalidInput(f"{name} has no containers (want: -c, --all-containers and --previous with a pod)")
        if (log := self._own_log(name)) is not None:
            return [LogSource(name, log)]
        try:
            target = self._target(name)
        except TestbedError:
            deleted = log_of_deleted(self._state.directory / "logs", key_of(name).file_name, container)
            if deleted is None or previous:
                raise
            return [LogSource(f"pod/{name}/{deleted.stem}", deleted)]
        if isinstance(target, Pod):
            return _of_pod(target, container, every=every, previous=previous)
        if isinstance(target, LabNode):
            return [LogSource(name, target.log)]
        raise TestbedError(f"{name} runs nothing that writes a log (see {self._state.directory / 'logs'})")

    def _own_log(self, name: str) -> Path | None:
        """Return the log of the lab, its DNS or an etcd member; a pod with such a name has priority."""
        members = {member.name: member.log for member in self._state.registry.etcd.members}
        if name in members:
            return members[name]
        if self._state.pods.named(name) is not None:
            return None
        if name == "lab":
            return self._state.directory / "lab.log"
        dns = self._lab.names.server
        return dns.log if name == "dns" and dns is not None else None


def _of_pod(pod: Pod, container: str | None, *, every: bool, previous: bool) -> list[LogSource]:
    known = {**pod.init_containers, **pod.containers}
    if container is not None and container not in known:
        raise TestbedError(f"pod {pod.name} has no container {container} (there are: {', '.join(known)})")
    chosen = list(known) if every else [container or next(iter(pod.containers))]
    found = []
    for name in chosen:
        log = known[name].log_before() if previous else known[name].log
        if log is not None:
            found.append(LogSource(f"pod/{pod.key}/{name}", log))
    if not found:
        want = f"want: logs {pod.key}, without --previous"
        raise TestbedError(f"pod {pod.name}: no previous run is kept of {', '.join(chosen)} ({want})")
    return found


def _is_written(log: Path | LogPart) -> bool:
    """Report whether the file exists; raise TestbedError for one that cannot be a log."""
    for file in (log,) if isinstance(log, Path) else log.files:
        try:
            with open(file, "rb", opener=plain) as opened:
                size = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:
            return False
        if size > LARGEST_LOG:
            raise TestbedError(f"{file}: is not a log (got {size} bytes; want at most {LARGEST_LOG})")
    return True


def _has_times(log: Path | LogPart) -> bool:
    files = (log,) if isinstance(log, Path) else log.files
    return all(os.path.exists(times_of(str(file), file.stat().st_ino)) for file in files)


def _timed(source: LogSource, *, has_label: bool) -> TimedSource:
    label, log = source.label if has_label else "", source.log
    if isinstance(log, Path):
        return label, [str(log)], 0, None
    return label, list(map(str, log.files)), log.first_byte, log.bytes


def show_command(sources: Sequence[LogSource], lines: int | None, *, follow: bool, labels: bool) -> list[str]:
    """Return the program that shows the logs: one after the other, or all at once if they are followed. Pure.

    `lines`: only this many at the end of each; `labels`: each line begins with its source.
    """
    number, more = "+1" if lines is None else str(lines), ["-F"] if follow else []
    first = sources[0].log
    if len(sources) == 1 and not labels and isinstance(first, Path):
        return ["tail", "-q", f"--lines={number}", *more, str(first)]
    words = [word for source in sources for word in _words(source, has_label=labels)]
    return ["bash", "-c", SEVERAL_LOGS, "logs", number, "".join(more), *words]


def _words(source: LogSource, *, has_label: bool) -> list[str]:
    """Return five words for one source, in the form of SEVERAL_LOGS."""
    label, log = source.label if has_label else "", source.log
    if isinstance(log, Path):
        return [label, "", "", "", str(log)]
    *predecessor, file = map(str, log.files)
    return [label, str(log.first_byte + 1), str(log.bytes), "".join(predecessor), file]
