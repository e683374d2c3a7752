"""Everything about a lab in one folder, enough to explain a failure after the lab is gone.

Collected with the user's verbs, many at once, each with its own time limit: a dead or hanging part of the lab costs
only its own file, which then reports it. A lab that does not answer at all leaves its logs.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from testbed.cluster.kinds import KINDS
from testbed.cluster.object_key import key_of, key_of_object
from testbed.control.answers.lab import StatusAnswer
from testbed.control.client import CLUSTER_FILE
from testbed.control.options import read_options
from testbed.control.questions import STATUS
from testbed.errors import TestbedError
from testbed.plain_files import read_end
from testbed.testing.bundle_findings import findings
from testbed.testing.lab_answers import Result
from testbed.testing.lab_handle import HEALTH, LabHandle
from testbed.testing.without_secrets import file_without_values, without_values

PART_LIMIT_S = 8.0
BUNDLE_LIMIT_S = 60.0
AT_ONCE = 8
LARGEST_COPY = 32 << 20
"""Bytes copied from a dead lab's file: the end of a larger one."""
CURL = f"curl --silent --show-error --max-time 3 {HEALTH}"

ON_NODES = {
    "links.txt": "ip -details -statistics link",
    "addresses.txt": "ip address",
    "routes.txt": "ip route show table all",
    "routing-policy.txt": "ip rule",
    "neighbours.txt": "ip neighbour",
    "bridge.txt": "bridge -details link; bridge fdb",
    "nft.txt": "nft -a list ruleset",
    "sockets.txt": "ss -tuanp",
    "sysctls.txt": "sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv4.conf.all.forwarding",
    "agent-state.json": f"{CURL}/state",
    "agent-metrics.txt": f"{CURL}/metrics",
    "agent-readyz.txt": f"{CURL}/readyz",
    "run.txt": "tail -v -n +1 /run/flannel/subnet.env /run/docker_opts.env",
}
"""File below nodes/NODE, and the command that produces it there."""
ON_PODS = {
    "links.txt": "ip -details -statistics link",
    "addresses.txt": "ip address",
    "routes.txt": "ip route show table all",
    "neighbours.txt": "ip neighbour",
    "sockets.txt": "ss -tuan",
}
"""File below pods/POD; commands run outside the containers, so they work when those are dead."""
ON_SWITCHES = "ip -details -statistics link; bridge link; bridge fdb; ip netns"
EXPLAINED = {
    "status.json, events.json": "the lab at a glance, and its events, oldest first; faults.json: active faults",
    "get/": f"{', '.join(kind.plural for kind in KINDS)}; "
    "routes are each node's kernel routes beside its forwarding table",
    "etcd.txt": "every key of etcd with its value; etcd-health.txt has the members' health",
    "nodes/NODE/": "links, addresses, routes, nft rules, sockets, the agent's state, metrics, log and subnet.env",
    "pods/POD/": "links, addresses, routes, sockets; a log for each container",
    "switches.txt": "the underlay's switches and their ports",
    "logs/": "the lab's own log, etcd's, and the journal of kernel changes; the end of deleted pods' logs",
    "captures/": "packets during the test (--lab-pcap): NODE-eth0 is the uplink, NODE-flannel0 (or what the "
    "backend has) the overlay device; a number counts the lives of a device; tcpdump -nr FILE shows them",
    "cluster.yaml": "the cluster file that the lab was made from, without values of Secrets",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder about a lab."""

    directory: Path
    findings: tuple[str, ...]
    """What stands out, one line each."""
    problems: tuple[str, ...]
    """Parts that are missing, one line each."""


@dataclass(frozen=True, slots=True)
class BundledFile:
    """One file of the bundle and the source of its text."""

    file: str
    text: Callable[[], str]


def write_bundle(lab: LabHandle, directory: Path, *, title: str, reason: str = "") -> Bundle:
    """Write everything about the lab below `directory`; `title` and `reason` (the failure) go into its README.txt.

    Never raises for the lab's answers or silence; raises OSError if the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    collected: dict[str, str] = {}
    status: StatusAnswer | None = None
    try:
        status = lab.ask(STATUS, timeout_s=PART_LIMIT_S)
    except TestbedError as failure:
        problems.append(f"status.json: {failure}; the rest is from {lab.record.rundir}")
        _copy_what_it_left(lab.record.rundir, directory)
    else:
        collected["status.json"] = _json(status)
        parts = [*_parts(lab, status), *_container_logs(lab, problems)]
        _collect(parts, collected, problems, time.monotonic() + BUNDLE_LIMIT_S)
        _copy_what_it_left(
            lab.record.rundir, directory, only=("cluster.yaml", "journal.jsonl*", "logs/deleted/**/*.log")
        )
    for file, text in collected.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = tuple(findings(collected)) if collected else (f"the lab does not answer: {problems[0]}",)
    bundle = Bundle(directory, found, tuple(sorted(problems)))
    (directory / "README.txt").write_text(_readme(lab, status, bundle, title, reason))
    return bundle


def _parts(lab: LabHandle, status: StatusAnswer) -> Iterator[BundledFile]:
    yield BundledFile("events.json", lambda: _json(lab.events()))
    yield BundledFile("faults.json", lambda: _json(lab.faults()))
    for kind in KINDS:
        yield BundledFile(f"get/{kind.plural}.json", partial(_objects, lab, kind.plural))
    limits = ["--dial-timeout=2s", "--command-timeout=4s"]
    # Other programs' keys in an existing cluster are not the lab's.
    ours = next((member["prefix"] for member in status["etcd"] if "prefix" in member), "")
    yield BundledFile("etcd.txt", lambda: _said(lab.etcdctl(*limits, "get", "--prefix", ours)))
    yield BundledFile("etcd-health.txt", lambda: _said(lab.etcdctl(*limits, "endpoint", "status", "--write-out=table")))
    yield BundledFile("switches.txt", partial(_script, lab, ON_SWITCHES, None))
    for name in ["lab", *(member["name"] for member in status["etcd"])]:
        yield BundledFile(f"logs/{name}.log", partial(lab.logs, name))
    for node in [line["name"] for line in status["nodes"]]:
        for file, command in ON_NODES.items():
            yield BundledFile(f"nodes/{node}/{file}", partial(_script, lab, command, node))
        yield BundledFile(f"nodes/{node}/describe.json", partial(_description, lab, "nodes", node))
        yield BundledFile(f"nodes/{node}/agent.log", partial(lab.logs, node))
    for pod in [line["name"] for line in status["pods"]]:
        directory = key_of(pod).file_name
        for file, command in ON_PODS.items():
            script = partial(_script, lab, f"ip netns exec {directory} {command}", None)
            yield BundledFile(f"pods/{directory}/{file}", script)
        yield BundledFile(f"pods/{directory}/describe.json", partial(_description, lab, "pods", pod))


def _container_logs(lab: LabHandle, problems: list[str]) -> Iterator[BundledFile]:
    try:
        pods = lab.get("pods")
    except TestbedError as failure:
        problems.append(f"pods/POD/CONTAINER.log: {failure}")
        return
    for pod in pods:
        key = key_of_object(pod)
        for container in [spec["name"] for spec in pod["spec"]["containers"]]:
            yield BundledFile(f"pods/{key.file_name}/{container}.log", partial(lab.logs, str(key), container))


def _objects(lab: LabHandle, kind: str) -> str:
    return _json([without_values(one) for one in lab.get(kind)])


def _description(lab: LabHandle, kind: str, name: str) -> str:
    return _json(lab.describe(kind, name))


def _script(lab: LabHandle, command: str, target: str | None) -> str:
    return f"# {command}\n{_said(lab.script(command, target, timeout_s=PART_LIMIT_S))}"


def _said(result: Result) -> str:
    """Return all output of a command, and the exit code if it failed."""
    ending = f"# exit code {result.exit_code}\n" if result.exit_code else ""
    return f"{result.stdout}{result.stderr}{ending}"


def _collect(parts: Sequence[BundledFile], collected: dict[str, str], problems: list[str], deadline: float) -> None:
    """Collect every part, several at a time; parts that miss the `deadline` are omitted and listed."""
    workers = ThreadPoolExecutor(AT_ONCE, "bundle")
    waiting = {workers.submit(part.text): part.file for part in parts}
    done, late = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
    for future in done:
        file, failure = waiting[future], future.exception()
        if failure is None:
            collected[file] = future.result()
        else:
            collected[file] = f"# could not be had: {failure}\n"
            problems.append(f"{file}: {failure}")
    problems += [f"{waiting[future]}: not in time" for future in late]
    workers.shutdown(wait=False, cancel_futures=True)


def _copy_what_it_left(rundir: Path, directory: Path, only: Sequence[str] = ()) -> None:
    """Copy the lab's own files as seen from the host; all of them if the lab does not answer."""
    patterns = only or ("cluster.yaml", "journal.jsonl*", "events.jsonl*", "lab.log*", "logs/**/*.log*")
    for file in sorted(file for pattern in patterns for file in rundir.glob(pattern)):
        try:
            text = read_end(file, LARGEST_COPY)
        except FileNotFoundError:
            continue
        except OSError as failure:
            text = f"# could not be had: {failure}\n".encode()
        place = file.relative_to(rundir)
        text = file_without_values(text) if place.name == CLUSTER_FILE else text
        target = directory / (place if place.parts[0] in ("cluster.yaml", "logs") else Path("logs", place))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)


def _source(lab: LabHandle, status: StatusAnswer | None) -> str:
    """Return the source of the lab's cluster; if the lab does not answer, the one recorded by `up`."""
    if status is not None:
        return status["cluster_file"]
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return read_options(lab.record.rundir).cluster_file
    return "an unknown cluster file"


def _readme(lab: LabHandle, status: StatusAnswer | None, bundle: Bundle, title: str, reason: str) -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    captured = (bundle.directory / "captures").is_dir()
    files = {name: text for name, text in EXPLAINED.items() if name != "captures/" or captured}
    sections = [
        f"{title}\nlab {lab.name}, collected {now}, created from {_source(lab, status)}",
        _section("What stands out", bundle.findings or ("no known problem",)),
        _section("What failed", reason.strip().splitlines()),
        _section("Missing parts", bundle.problems),
        _section("Contents", [f"{name:26}{text}" for name, text in files.items()]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _section(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([heading, *(f"  {line}" for line in lines)]) if lines else ""


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
