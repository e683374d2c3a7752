"""Checks what this machine offers and what is missing, by trying it.

`checks` builds the table of `testbed doctor`; `up` checks only what every lab needs and refuses with
`required_failures`. Kernel features are tried in temporary namespaces, never in the host's own: an idle process (`cat`)
holds them and ends when its standard input closes, so they vanish even if we are killed.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from agent.errors import AgentError, EnvironmentMissing
from testbed.cluster import capacity
from testbed.control.answers.offline import DoctorCheck
from testbed.control.client import RUN_ROOT
from testbed.host.packages import installed_version, required_packages, unsatisfied
from testbed.places import INSTALL, IS_CLONE, PAUSE, PROJECT
from testbed.processes.readable import readable

TUN = Path("/dev/net/tun")
TOMCAT = Path("/usr/share/tomcat10/bin/catalina.sh")
SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"  # not on a normal user's PATH
SMALLEST_LAB = (2, 4)
"""Nodes and pods of the cluster two_nodes."""
TRY_LIMIT_S = 10.0  # one try takes milliseconds; loading a kernel module on a slow disk may take seconds


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """One check and its result."""

    name: str
    ok: bool
    found: str
    want: str
    remedy: str
    """How to get it, as an instruction or a command to paste."""
    needed_for: str = ""
    """What does not work without it; empty if no lab works."""

    def line(self) -> DoctorCheck:
        """Return it in the form of `doctor -o json`."""
        return {
            "name": self.name,
            "ok": self.ok,
            "found": self.found,
            "want": self.want,
            "remedy": self.remedy,
            "needed_for": self.needed_for,
        }


@dataclass(frozen=True, slots=True)
class Feature:
    """A kernel feature, and a command that fails without it."""

    name: str
    command: tuple[str, ...]
    stdin: str = ""
    needed_for: str = ""


MASQUERADE = (
    "table ip probe { chain post { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }; }"
)
FEATURES = (
    Feature("bridge", ("ip", "link", "add", "probe-bridge", "type", "bridge")),
    Feature("veth", ("ip", "link", "add", "probe-veth", "type", "veth", "peer", "name", "probe-peer")),
    Feature("tun", ("ip", "tuntap", "add", "probe-tun", "mode", "tun")),
    Feature("nftables", ("nft", "-f", "-"), stdin=MASQUERADE),
    Feature(
        "vxlan",
        ("ip", "link", "add", "probe-vxlan", "type", "vxlan", "id", "1", "dstport", "8472", "local", "127.0.0.1"),
        needed_for="the vxlan backend",
    ),
    Feature(
        "netem",
        ("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"),
        needed_for="delay, loss and jitter on links",
    ),
    Feature("wireguard", ("ip", "link", "add", "probe-wg", "type", "wireguard"), needed_for="the wireguard backend"),
    Feature(
        "ipip",
        ("ip", "link", "add", "probe-ipip", "type", "ipip", "local", "127.0.0.1", "remote", "127.0.0.2"),
        needed_for="the ipip backend",
    ),
    Feature("fou", ("ip", "fou", "add", "port", "8285", "ipproto", "4"), needed_for="--datapath kernel"),
)

UNLOADED = {
    "ipip": "not tried: loading it adds tunl0 to the host",
    "fou": "the agent loads it",
}
"""What is said of a module that is on disk only."""

PROGRAMS = (  # program, Debian package, what it is needed for
    ("etcd", "etcd-server", ""),
    ("etcdctl", "etcd-client", ""),
    ("mnexec", "mininet", ""),
    ("ip", "iproute2", ""),
    ("nft", "nftables", ""),
    ("unshare", "util-linux", ""),
    ("nsenter", "util-linux", ""),
    ("knotd", "knot", "names"),
    ("knotc", "knot", "names"),
    ("ping", "iputils-ping", "ping"),
    ("curl", "curl", "the examples"),
    ("ovs-vswitchd", "openvswitch-switch", "underlay.switch: ovs"),
    ("ovsdb-server", "openvswitch-switch", "underlay.switch: ovs"),
    ("ethtool", "ethtool", "underlay.switch: ovs"),
    ("kdig", "knot-dnsutils", "the examples"),
    ("tcpdump", "tcpdump", "capture"),
    ("iperf3", "iperf3", "iperf"),
    ("sockperf", "sockperf", "bench"),
    ("nginx", "nginx-light", "image nginx"),
    ("java", "tomcat10", "image tomcat"),
    ("apache2", "apache2-bin", "image httpd"),
    ("busybox", "busybox", "image busybox"),
)
DEBIAN_PACKAGES = {program: package for program, package, _ in PROGRAMS} | {"tomcat10": "tomcat10"}


def checks(*, optional: bool = True, also: Iterable[str] = (), rootless: bool = False) -> tuple[MachineCheck, ...]:
    """Run every check; change nothing outside of temporary namespaces.

    Takes about 0.1 s. Without `optional`, skip memory and disk space, which depend on the lab, and kernel features that
    not every lab needs: trying them (vxlan, wireguard, netem) makes the kernel load their modules. Those for a purpose
    in `also` are tried all the same. `rootless`: for a lab that needs no root.
    """
    purposes = {"", *also}
    return (
        *([] if rootless else [root_check(os.geteuid())]),
        tun_check(TUN),
        *program_checks(_which),
        file_check("tomcat10", TOMCAT, "image tomcat", INSTALL if IS_CLONE else "apt install tomcat10"),
        file_check("pause", PAUSE, "", INSTALL if IS_CLONE else f"pip install --force-reinstall --no-deps {PROJECT}"),
        packages_check(required_packages(), installed_version),
        *([memory_check(capacity.available_mib()), room_check(RUN_ROOT)] if optional else []),
        *_kernel_checks([item for item in FEATURES if optional or item.needed_for in purposes]),
        *([forwarding_check(_dropping_chains)] if optional else []),
    )


def required_failures(found: Iterable[MachineCheck], also: Iterable[str] = ()) -> tuple[MachineCheck, ...]:
    """Return what keeps every lab from starting, and whatever is missing for the purposes in `also` ("image nginx")."""
    purposes = {"", *also}
    return tuple(check for check in found if not check.ok and check.needed_for in purposes)


def error_line(check: MachineCheck) -> str:
    """Format the failure as `environment: what (got …; want …)`, to follow `error: `."""
    return f"environment: {check.name} (got {check.found}; want {check.want}: {check.remedy})"


def root_check(user: int) -> MachineCheck:
    """Check that the effective user id is root's."""
    return MachineCheck("root", user == 0, f"uid {user}", "uid 0", "put sudo in front of the command")


def tun_check(device: Path) -> MachineCheck:
    """Check that the TUN device can be opened for reading and writing."""
    found = "can be opened"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        found = f"{device}: {error.strerror}"
    remedy = "sudo modprobe tun; in a container: start it with --privileged"
    return MachineCheck("/dev/net/tun", found == "can be opened", found, "a TUN device that can be opened", remedy)


def memory_check(available_mib: int) -> MachineCheck:
    """Check that the smallest lab fits into memory."""
    needed = capacity.needed_mib(*SMALLEST_LAB) + capacity.RESERVE_MIB
    limit = capacity.most_nodes(available_mib, 2)
    found = f"{available_mib} MiB free, enough for {limit} nodes with two pods each"
    remedy = "end other programs, or give the machine more (a VM: its memory; a container: its limit)"
    return MachineCheck("memory", available_mib >= needed, found, f"{needed} MiB for two_nodes", remedy)


def room_check(directory: Path, needed_for: str = "") -> MachineCheck:
    """Check that records and logs of the smallest lab fit into the directory of labs."""
    needed = capacity.needed_room_mib(*SMALLEST_LAB)
    free, size = capacity.room_mib(directory)
    want = f"{needed} MiB for records and logs of two_nodes"
    found = f"{free} of {size} MiB free"
    return MachineCheck(f"room in {directory}", free >= needed, found, want, capacity.ROOM_REMEDY, needed_for)


def program_checks(which: Callable[[str], str | None]) -> tuple[MachineCheck, ...]:
    """Check each program that we start; `which` finds a program's path."""
    found = []
    for program, package, needed_for in PROGRAMS:
        path = which(program)
        option = " --ovs" if package == "openvswitch-switch" else ""
        ours = f"{INSTALL}{option}, or " if IS_CLONE else ""
        remedy = f"{ours}apt install {package}"
        found.append(MachineCheck(program, path is not None, path or "none on PATH", "the program", remedy, needed_for))
    return tuple(found)


def file_check(name: str, path: Path, needed_for: str, remedy: str) -> MachineCheck:
    """Check that a program outside of PATH is where we start it from."""
    ok = os.access(path, os.X_OK)
    return MachineCheck(name, ok, str(path) if ok else f"no program at {path}", "the program", remedy, needed_for)


def packages_check(required: Sequence[Requirement], version: Callable[[str], str | None]) -> MachineCheck:
    """Check that every Python package has an accepted version. etcd3, for one, breaks with a newer protobuf."""
    problems = unsatisfied(required, version)
    found = ", ".join(problems) if problems else f"{len(required)} as required"
    if not required:
        found = f"{PROJECT} itself is not installed in this Python"
    return MachineCheck("Python packages", bool(required) and not problems, found, "those of pyproject.toml", INSTALL)


def forwarding_check(dropping_chains: Callable[[], Sequence[str]]) -> MachineCheck:
    """Check that this machine's own firewall accepts what a joined machine forwards.

    Labs have their own namespaces. `dropping_chains` describes chains that drop it. Raises AgentError if they cannot be
    read.
    """
    want = "no chain of another program that drops all forwarded packets"
    remedy = (
        "accept the pod network in that chain (nft insert rule FAMILY TABLE CHAIN ip saddr NETWORK accept;"
        " firewalld: firewall-cmd --zone=trusted --add-source=NETWORK)"
    )
    needed_for = "testbed join"
    try:
        chains = dropping_chains()
    except AgentError as error:
        return MachineCheck("forwarding", True, f"not checked: {error}", want, remedy, needed_for)
    return MachineCheck(
        "forwarding", not chains, "; ".join(chains) or "no chain drops all forwarded packets", want, remedy, needed_for
    )


def missing_debian_packages(found: Iterable[MachineCheck]) -> list[str]:
    """List the Debian packages with missing programs, each once; not Open vSwitch, which few labs need."""
    missing = [DEBIAN_PACKAGES[check.name] for check in found if not check.ok and check.name in DEBIAN_PACKAGES]
    return sorted(set(missing) - {"openvswitch-switch"})


def _dropping_chains() -> Sequence[str]:
    from agent.kernel.forward_rules import dropping_chains

    if os.geteuid() != 0:
        raise EnvironmentMissing("needs root")
    return dropping_chains()


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_DIRECTORIES}")


class ScratchNamespaces(AbstractContextManager["ScratchNamespaces"]):
    """Temporary network, mount and PID namespaces for trying things. Raises OSError if they cannot be created.

    Without root they are in a new user namespace, where the kernel offers the same features.
    """

    def __init__(self, *, as_user: bool = False) -> None:
        self._as_user = ["--user", "--map-root-user"] if as_user or os.geteuid() != 0 else []
        command = ["unshare", *self._as_user, "--net", "--mount", "--pid", "--fork", "cat"]
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        if not self._echoes():
            self._holder.kill()
            _, said = self._holder.communicate()
            raise OSError(_first_line(said.decode(errors="replace")) or "unshare did not answer")

    def attempt(self, command: Sequence[str], stdin: str) -> str:
        """Run a command inside; return its error output, empty on success."""
        target = str(self._holder.pid)
        joining = ["--user", "--preserve-credentials"] if self._as_user else []
        enter = ["nsenter", "--target", target, *joining, "--net", "--", *command]
        environment = {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_DIRECTORIES}"}
        try:
            done = subprocess.run(
                enter, input=stdin, capture_output=True, text=True, timeout=TRY_LIMIT_S, check=False, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return "" if done.returncode == 0 else _first_line(done.stderr) or f"exit code {done.returncode}"

    def _echoes(self) -> bool:
        """Report whether cat answers from inside: only then do the namespaces exist."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        try:
            self._holder.stdin.write(b"?")
        except BrokenPipeError:
            return False
        return bool(readable([self._holder.stdout.fileno()], TRY_LIMIT_S) and self._holder.stdout.read(1))

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()  # closes cat's input, which ends it


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _kernel_checks(features: Sequence[Feature]) -> list[MachineCheck]:
    name, want = "namespaces", "net, mount and PID namespaces"
    remedy = "run it as root on the machine itself, or in a container started with --privileged"
    try:
        with ScratchNamespaces() as scratch:
            made = MachineCheck(name, True, "can be created", want, remedy)
            return [made, *(_feature_check(feature, scratch) for feature in features)]
    except OSError as error:
        return [MachineCheck(name, False, str(error), want, remedy)]


def _feature_check(feature: Feature, scratch: ScratchNamespaces) -> MachineCheck:
    if without := untried(feature, _which):
        return without
    want = f"a kernel with {feature.name}"
    remedy = "Debian's own kernel has it: apt install linux-image-amd64 (or -arm64), and reboot"
    if feature.name in UNLOADED and _is_module_on_disk(feature.name):
        found = f"a module, not loaded now ({UNLOADED[feature.name]})"
        return MachineCheck(f"kernel: {feature.name}", True, found, want, remedy, feature.needed_for)
    complaint = scratch.attempt(feature.command, feature.stdin)
    return MachineCheck(
        f"kernel: {feature.name}", not complaint, complaint or "works", want, remedy, feature.needed_for
    )


def untried(feature: Feature, which: Callable[[str], str | None]) -> MachineCheck | None:
    """Report that a feature could not be tried because its program is missing, which proves nothing about
    the kernel.
    """
    program = feature.command[0]
    if which(program) is not None:
        return None
    package = {**DEBIAN_PACKAGES, "tc": "iproute2"}[program]
    found, want = f"not tried: the program {program} is missing", "the program"
    return MachineCheck(f"kernel: {feature.name}", False, found, want, f"apt install {package}", feature.needed_for)


def _is_module_on_disk(name: str) -> bool:
    """Report whether the kernel would have to load this module first."""
    if Path("/sys/module", name).exists():
        return False
    index = Path("/lib/modules", os.uname().release, "modules.dep")
    try:
        return f"/{name}.ko" in index.read_text(encoding="utf-8")
    except OSError:
        return False
