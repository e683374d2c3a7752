"""The rows of docs/results, which tests show them, and how a test run fared.

A row's id is a letter for its table and a number; `pytest.mark.row(id)` on a test ties it to the row. What a row asks
of a feature that does not exist yet is said in `absent`, so that no table claims more than there is.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from tests.policy_cases import CASES

Outcome = Literal["passed", "failed", "skipped", "expected failure", "not run"]

_WORST_FIRST: tuple[Outcome, ...] = ("failed", "expected failure", "skipped", "passed", "not run")
"""A test has a report for its set-up, its call and its tear-down; the first of these that occurs is the test's."""

MEASURED = "row measured"
"""A test's property: JSON with what it promises and the seconds that it measured."""

TABLES: Mapping[str, str] = {
    "F": "fault",
    "B": "input",
    "K": "what must hold",
    "N": "check of Kubernetes' own suite",
    "C": "as flannel does, or as its users ask",
    "P": "what must hold of network policies",
    "Q": "case of a suite for network policies",
}
"""The letter of each table, and what its rows are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what happens to the product, and what of it cannot be shown because the feature is not there."""

    what: str
    absent: str = ""
    source: str = ""
    """Issues of flannel-io/flannel that ask for it."""
    software: tuple[str, ...] = ()
    """Other programs that its tests run or compare with, names of SOFTWARE."""
    suite: str = ""
    """The suite whose case it is; cases that hold share a line."""


VERSION = re.compile(r"\d+(?:\.\d+)+")


def version_of(*command: str) -> str:
    """Return the first version that a command prints; "" without one. Raises OSError."""
    said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    found = VERSION.search(said)
    return found[0] if found else ""


OTHER_ETCDS: Mapping[str, str] = {
    version_of(program, "--version"): program for program in os.environ.get("TESTBED_ETCDS", "").split(":") if program
}
"""Version → program, of etcds beside that on PATH."""
SOFTWARE: Mapping[str, tuple[str, ...] | str] = {
    "flanneld": "0.20.2 by what one wrote and sent; rules of August 2026 by its sources",
    "etcd": ("etcd", "--version"),
    "other etcds": ", ".join(OTHER_ETCDS),
    "iptables": ("iptables", "--version"),
    "nftables": ("nft", "--version"),
    "dockerd": ("dockerd", "--version"),
    "podman": ("podman", "--version"),
    "CNI plugins": ("dpkg-query", "--show", "--showformat=${Version}", "containernetworking-plugins"),
}
"""Programs → what prints their version, or the version itself."""


def described_case(case: Mapping[str, Any]) -> str:
    """Return a case of network policies with the suite that asks for it and the answers that it expects."""
    lines = "; ".join(f"`{line}`" for line in case["expect"]) or "everything passes"
    return f"{case['case']} ({case['like']}): {lines}"


ROWS: Mapping[str, Row] = {
    "F1": Row("agent ended by SIGTERM, started again"),
    "F2": Row("agent killed by SIGKILL, started again by its supervisor"),
    "F3": Row("agent killed 20 times in 60 s"),
    "F4": Row("agent away longer than its lease lives, nobody took the subnet"),
    "F5": Row("agent away longer than its lease lives, another node took the subnet"),
    "F6": Row("agent stands still (SIGSTOP) for two lease lives"),
    "F7": Row("all agents killed at once"),
    "F8": Row("agent's main loop hangs"),
    "F9": Row("agent killed for want of memory"),
    "F10": Row("data path ends alone"),
    "F11": Row("one of three etcd members killed, a follower"),
    "F12": Row("etcd's leader killed"),
    "F13": Row("two of three etcd members away for 60 s"),
    "F14": Row("the only etcd member away for six lease lives"),
    "F15": Row("etcd's data gone, empty start"),
    "F16": Row("etcd back from an old snapshot: the revision goes back"),
    "F17": Row("etcd full (alarm NOSPACE) for three lease lives"),
    "F18": Row("etcd answers after 2 s"),
    "F19": Row("disk full or read-only where subnet.env lies"),
    "F20": Row("history compacted while watching"),
    "F21": Row("history compacted while cut off from etcd"),
    "F22": Row("lease revoked by an operator"),
    "F23": Row("own key deleted or edited"),
    "F24": Row("100 agents start within a second"),
    "F25": Row("the last free subnet raced for"),
    "F26": Row("network config changed at run time"),
    "F27": Row("underlay cable out for 5 s"),
    "F28": Row("underlay cable out and in 100 times in 20 s"),
    "F29": Row("one node cut off for less than a lease's life"),
    "F30": Row("one node cut off for longer than a lease's life"),
    "F31": Row("one node cut off from etcd alone, for longer than a lease's life"),
    "F32": Row("loss in one direction only"),
    "F33": Row("30 % loss, 100 ms ± 50 ms delay, 5 % duplicates, 10 % out of order"),
    "F34": Row("1 % of packets damaged"),
    "F35": Row("node loses its power and comes back"),
    "F36": Row("node gets another address"),
    "F37": Row("node's address moves to another interface"),
    "F38": Row("two nodes with one public address"),
    "F39": Row("wall clock jumps by an hour"),
    "F40": Row("TLS certificate expires or is replaced"),
    "F41": Row("overlay device, routes or rules deleted"),
    "F42": Row("a pod's pause process killed"),
    "F43": Row("a service's backend dies; all die"),
    "F44": Row("overlay port taken already"),
    "F45": Row("no descriptors, no buffers, no memory"),
    "F46": Row("testbed killed hard, then up again"),
    "F47": Row("soak: renewals, joins, leaves and packets without end"),
    "F48": Row("the processes that hold machines' namespaces killed, as by another `mn -c`"),
    "F49": Row("etcd answers, but does not renew leases; a proxy before etcd"),
    "B1": Row("unknown flag, missing value, extra argument"),
    "B2": Row("`--etcd-endpoints` empty, `:2379`, `ftp://`, port 0, 65536 or x, trailing comma"),
    "B3": Row("`--iface` unknown, of two interfaces, without IPv4, down"),
    "B4": Row("`--public-ip` 0.0.0.0, 127.1, 224.0.0.1, 256.1.1.1, of the overlay, `::1`"),
    "B5": Row("`--subnet-lease-renew-margin` 0, -1, 1440, not below the TTL, 1e9, `ten`"),
    "B6": Row("`--subnet-file` a directory, a symbolic link, unwritable, with `..`"),
    "B7": Row(
        "TLS: certificate without key, wrong authority, expired, other name, unreadable, key and certificate swapped"
    ),
    "B8": Row("no root, no /dev/net/tun, a program missing"),
    "B9": Row("cluster file missing, empty, binary, 10 MB, with byte order mark, with tabs, not UTF-8"),
    "B10": Row("YAML alias bomb, `!!python/object` tag"),
    "B11": Row("unknown key, wrong type, duplicate key"),
    "B12": Row("node, pod, service or port name twice"),
    "B13": Row("names: empty, 64 characters, `../x`, `a b`, `;rm`, `$()`, newline, `-x`, unicode, 16 characters"),
    "B14": Row("pod on an unknown node, service that selects nothing, link to itself, nodes that are not connected"),
    "B15": Row("a port or nodePort 0, 80, 65536, or twice, or that of the overlay or etcd"),
    "B16": Row("clusterIP outside the range, twice, or somebody else's"),
    "B17": Row("overlay overlaps the underlay or the range of services", absent="a lab never sees the host's LAN"),
    "B18": Row(
        "MTU 0, 67, 575, 65536, `1500B`", absent="an overlay MTU of one's own, which could exceed the underlay's"
    ),
    "B19": Row("bandwidth, delay, loss: negative, 101 %, `inf`, `nan`"),
    "B20": Row("more nodes than this machine can hold"),
    "B21": Row("network config absent, empty, `{}`, `null`, `[]`, truncated, 1 MB"),
    "B22": Row("Network `10.0.0.0/33`, `/29`, with host bits, IPv6, `999.…`, missing"),
    "B23": Row('SubnetLen 31, below Network + 2, 0, -1, 24.5, "24", true'),
    "B24": Row("SubnetMin/Max outside, unaligned, crossed; Backend type and options unknown; Port 0, 65536, text"),
    "B25": Row("datagram of 0, 1, 19 bytes; version 0, 5, 6, 15; IPv6"),
    "B26": Row("header length 0 to 4; 15 with and without room for it"),
    "B27": Row("total length below the header's; beyond what came; below what came"),
    "B28": Row("wrong inner header checksum"),
    "B29": Row("TTL 0, 1"),
    "B30": Row("datagram larger than the overlay MTU, up to 65,507 bytes"),
    "B31": Row("inner source: not in the sender's lease, ours, 0/8, 127/8, 224/4, 255.255.255.255"),
    "B32": Row("inner destination: not in our subnet, a node, 127/8, multicast, the subnet's broadcast"),
    "B33": Row("outer source: no peer, ourselves, a peer just withdrawn, another port"),
    "B34": Row("fragments: overlapping, tiny first, beyond 65,535, 10,000 incomplete"),
    "B35": Row("inner packet is our own overlay UDP"),
    "B36": Row("flood of junk from a non-peer"),
    "B37": Row("GSO header lies"),
    "B38": Row(
        "subnet.env empty, truncated, NUL, CRLF, quoted, `export`, twice, two networks, bad, 10 MB, a directory"
    ),
    "B39": Row("subnet.env good, but its subnet is outside the config, another's, of a wrong length"),
    "B40": Row("lease key `10.1.5.0`, `10.1.5.300-24`, `…-33`, `…-24hi`, `10.1.5.1-24`, unicode, 4 kB"),
    "B41": Row("lease value no JSON, PublicIP missing, 5, null, IPv6, 0.0.0.0, extra fields, 1 MB"),
    "B42": Row("leases that overlap; /0, /8; two keys with one PublicIP; our own subnet owned by another"),
    "B43": Row("a container's program missing, not executable, ending at once, endless output, no newline"),
    "B44": Row("control socket: garbage, a line of 1 MB, half a message, 1,000 idle clients, another user"),
    "K1": Row("no NAT between pods: 4 servers on 3 nodes see each of 6 pods by its own address"),
    "K2": Row("node → pod: seen by the node's overlay address elsewhere, by its bridge at home"),
    "K3": Row("inside one pod: one volume, both ways; one loopback, one port space"),
    "K4": Row("a service spreads over all backends, cluster IP and node port, HTTP and UDP"),
    "K5": Row("a pod reaches itself through its own service"),
    "K6": Row("source kept through a cluster IP, same node and other node"),
    "K7": Row("no endpoints: refused within 1 s, on cluster IP and node port"),
    "K8": Row("UDP from one source port: the new backend answers within 2 s"),
    "K9": Row("affinity 15 of 15, its timeout, switched off and on"),
    "K10": Row("rules deleted: the way is back within 10 s"),
    "K11": Row("2,000 bytes through a service across nodes, UDP and HTTP"),
    "K12": Row("node port on a node without backend; never on 127.0.0.1"),
    "K13": Row("UDP from one source port since before its Service, node port or host port: answered within 1 s"),
    "N1": Row("Granular Checks: Pods, intra-pod and node-pod, http and udp"),
    "N2": Row("Services: basic and multiport endpoints"),
    "N3": Row("Services: same port, different protocols"),
    "N4": Row("Services: functioning NodePort"),
    "N5": Row("Services: session affinity, and switching it"),
    "N6": Row("Service endpoints latency: 100 services are created, and each answers"),
    "N7": Row("HostPort: no conflict where protocol or address differ"),
    "N8": Row("Networking: pod-Service, node-Service, endpoint-Service, http and udp"),
    "N9": Row("Services: hairpin back to self"),
    "N10": Row("Services: preserve source pod IP through cluster IP"),
    "N11": Row("Services: several with the same selector, delete one"),
    "N12": Row("Networking: update endpoints"),
    "N13": Row("Networking: update nodePort"),
    "N14": Row("Networking: large requests, http and udp"),
    "N15": Row("Services: rejected when no endpoints"),
    "N16": Row("Services: up and down"),
    "N17": Row("Networking: rules made again when deleted"),
    "N18": Row("Conntrack: UDP survives server pod cycling, NodePort and ClusterIP"),
    "N19": Row("Conntrack: initially unready endpoint"),
    "N20": Row("Conntrack: packets in state INVALID dropped"),
    "N21": Row("NoSNAT: all pairs of pods with a server"),
    "N22": Row("Services: change of type"),
    "N23": Row("DNS for services"),
    "N24": Row("DNS for pods"),
    "N25": Row("DNS for headless services, SRV"),
    "P1": Row("in force on every node within 1 s, and as soon no longer"),
    "P2": Row(
        "one more beside 1,000 on five nodes: in force within 0.5 s of the command's start, 9 times of 10 at least"
    ),
    "P3": Row("200 random sets: `testbed policy`, a second evaluation and real probes agree, pair by pair"),
    "P4": Row("labels of pods and namespaces count as they are now"),
    "P5": Row("agent killed: what is denied stays denied"),
    "P6": Row("rules deleted by another program: denied again within 5 s"),
    "P7": Row("node rebooted: in force again"),
    "P8": Row("a pod with another address is isolated from its first moment"),
    "P9": Row("34 forged frames, to the same and to another node, under a default deny: none delivered"),
    "P10": Row("every backend and data path, IPv4 and IPv6"),
    "P11": Row("a node reaches its own pods; a pod with its node's network is a node"),
    "P12": Row("what is open goes on under a policy that forbids it; a new one does not begin"),
    "P13": Row("a named port is the number that each pod gives it"),
    **{f"Q{number}": Row(described_case(case), suite=case["like"]) for number, case in enumerate(CASES, 1)},
    "C1": Row("etcd's keys, values and leases as flanneld writes them", software=("flanneld", "etcd")),
    "C2": Row("subnet.env as flanneld writes it, to the byte", software=("flanneld",)),
    "C3": Row("device: flags, MTU, settings, address", software=("flanneld",)),
    "C4": Row("routes, permanent neighbours, forwarding entries", software=("flanneld",)),
    "C5": Row("the verdict of masquerade and forward rules on every kind of packet", software=("flanneld", "nftables")),
    "C6": Row("choice of the interface; variables of a flanneld unit file"),
    "C7": Row("flannel's case: pings between two hosts, pod to pod, per backend"),
    "C8": Row("flannel's case: the iperf3 throughput test completes, per backend"),
    "C9": Row("flannel's case: a pod deleted and recreated, per backend"),
    "C10": Row("flannel's case: a rolling restart keeps subnets and connectivity, per backend"),
    "C11": Row("flannel's case: dual-stack connectivity, per backend"),
    "C12": Row("flannel's case: a ClusterIP Service across nodes, per backend"),
    "C13": Row("a watch that works after a restart or compaction of etcd", source="2470, 2471, 1714, 110"),
    "C14": Row("no subnet twice", source="1289, 805, 1129, 1182, 813"),
    "C15": Row("two nodes with one address", source="51, 98"),
    "C16": Row("the same subnet after the lease was lost", source="1240, 904, 621, 29, 610"),
    "C17": Row("stale routes removed at start", source="2554, 1604, 509, 1546, 333"),
    "C18": Row("no peer missed when many join at once", source="1145, 958, 1237"),
    "C19": Row("a peer's changed MAC or address is noticed", source="533, 1036, 1788, 1247"),
    "C20": Row("MTU: reported, and never a black hole", source="1011, 463, 841"),
    "C21": Row(
        "device and routes come back after a link flap or a deletion", source="877, 869, 2247, 1348, 1434, 1070"
    ),
    "C22": Row("udp: right source address, and peers reached after a restart", source="434, 1049, 795, 692, 342"),
    "C23": Row("of several addresses one that lasts, and the same one while it is there", source="2293, 73"),
    "C24": Row("a changed public address keeps the subnet", source="760"),
    "C25": Row("reservations that stay, a lease's life that can be set", source="1329, 280, 319, 875"),
    "C26": Row("subnet.env and bridge that agree", source="2232, 2253, 1850"),
    "C27": Row(
        "pods reach each other although docker's FORWARD policy is drop",
        source="609, 799, 823, 834, 872",
        software=("iptables", "nftables"),
    ),
    "C28": Row("forward rules that can be switched off, and do not go before a network policy", source="938, 978"),
    "C29": Row("clean-up", source="886, 739, 820"),
    "C30": Row("a conflict with the machine's networks is reported", source="611"),
    "C31": Row("several networks side by side", source="288, 169"),
    "C32": Row("a bad entry under /subnets has no effect on others", source="1368, 2539"),
    "C33": Row("pods' source addresses stay among pods", source="964, 864, 734, 2176"),
    "C34": Row(
        "in the place of a flanneld, and back: its rules removed, or only ours",
        software=("flanneld", "iptables", "nftables"),
    ),
    "C35": Row(
        "dockerd with docker_opts.env: containers of two machines, published ports, shared networks",
        software=("dockerd", "iptables"),
    ),
    "C36": Row(
        "CNI plugins (bridge, host-local, portmap, as flannel's calls them) by podman; one bridge for pods",
        software=("podman", "CNI plugins"),
    ),
    "C37": Row("a lab with an agent that reports nothing: kernel and etcd are asked instead"),
    "C38": Row("a lab with another etcd program", software=("etcd",)),
    "C39": Row(
        "a lab whose pods' networks CNI plugins make: bridge and host-local, a chain with tuning and portmap",
        software=("CNI plugins",),
    ),
    "C40": Row(
        "a lab with a CNI plugin that fails: an error, garbage, a hang, half done, success without an interface",
        software=("CNI plugins",),
    ),
    "C41": Row("a CNI plugin of version 1.1.0: STATUS before ADD, GC after a DEL that failed; CHECK of a broken link"),
    "C43": Row("a lab that uses an existing etcd cluster: plain, TLS, user and password", software=("etcd",)),
    "C44": Row("agents behind etcd, its grpc-proxy and its gateway, with tokens that expire", software=("etcd",)),
    "C45": Row("the same with other versions of etcd (TESTBED_ETCDS)", software=("other etcds",)),
}


def shows(row: str, cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the cases of a parametrised test that show `row`; pytest's own type for them is not public."""
    return [pytest.param(*case, marks=pytest.mark.row(row)) for case in cases]


class Measured(TypedDict):
    """What a test of a fault promises, and the seconds that it took each time."""

    promise: str
    seconds: list[float]
    missed: NotRequired[str]
    """What did not hold, the last time."""


class Ran(TypedDict):
    """When a run of tests was, and with which versions of other programs."""

    day: str
    versions: dict[str, str]


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of programs on this machine, without those that it does not have."""
    found = {}
    for name in names:
        known = SOFTWARE[name]
        if isinstance(known, str):
            found[name] = known
            continue
        with suppress(OSError):
            if version := version_of(*known):
                found[name] = version
    return found


class RowsReport:
    """Which tests show which rows, and how each of them ended."""

    def __init__(self) -> None:
        self._tests: dict[str, list[str]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._measured: dict[str, Measured] = {}

    def expect(self, row: str, test: str) -> None:
        """Note that `test` shows `row`."""
        self._tests.setdefault(row, []).append(test)
        self._outcomes.setdefault(test, "not run")

    def note(self, test: str, outcome: Outcome) -> None:
        """Note the result of one phase of `test`; the worst phase counts. Tests that show no row are ignored."""
        if test in self._outcomes:
            self._outcomes[test] = min(self._outcomes[test], outcome, key=_WORST_FIRST.index)

    def measure(self, test: str, text: str) -> None:
        """Note what `test` measured, as the value of its property MEASURED."""
        self._measured[test] = json.loads(text)

    def outcomes(self) -> dict[str, dict[str, Outcome]]:
        """Return each row's tests with their outcomes."""
        return {row: {test: self._outcomes[test] for test in tests} for row, tests in self._tests.items()}

    def _software(self) -> list[str]:
        """Return the programs that tests of this run met."""
        met = {row for row, tests in self._tests.items() if any(self._outcomes[test] == "passed" for test in tests)}
        return [name for name in SOFTWARE if any(name in ROWS[row].software for row in met if row in ROWS)]

    def write(self, file: Path) -> None:
        """Put the report in place as a whole, also where the directory is everybody's. Raises OSError."""
        descriptor, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        with open(descriptor, "w", encoding="utf-8") as opened:
            ran = Ran(day=datetime.now(UTC).date().isoformat(), versions=versions_of(self._software()))
            json.dump({"rows": self.outcomes(), "measured": self._measured, "ran": ran}, opened, indent=1)
        os.chmod(draft, 0o644)
        os.replace(draft, file)


def read_ran(file: Path) -> Ran:
    """Return when the tests ran, and with which programs. Raises OSError and ValueError."""
    ran: Ran = json.loads(file.read_text(encoding="utf-8")).get("ran", {"day": "", "versions": {}})
    return ran


def read_measured(file: Path) -> dict[str, "Measured"]:
    """Return what tests measured, by test. Raises OSError and ValueError."""
    return dict(json.loads(file.read_text(encoding="utf-8")).get("measured", {}))


def read_report(file: Path) -> dict[str, dict[str, Outcome]]:
    """Return what `RowsReport.write` wrote. Raises OSError and ValueError."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {row: dict(tests) for row, tests in rows.items()}
