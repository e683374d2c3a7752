"""The host's part of a lab with an existing etcd cluster: its files, and a look before anything is made."""

import base64
import contextlib
import json
import os
import pwd
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.cluster.etcd_claim import Claimant, PrefixClaim
from testbed.cluster.etcd_spec import EtcdSpec, written_as
from testbed.cluster.spec import Cluster
from testbed.control.existing_etcd import GRPC, HEALTH_LIMIT_S, HTTP, ExistingEtcd, in_words, why_unhealthy
from testbed.errors import EtcdFailed, WrongEnvironment
from testbed.host.lab_directories import sudo_group, sudo_user
from testbed.processes.supervise import last_words

MACHINE_ID = Path("/etc/machine-id")
LARGEST_BYTES = 32_768
"""All of them go to the lab in one message."""
FILES = ("ca", "cert", "key", "password_file")
COMMAND_LIMIT_S = 10.0


def open_existing(cluster: Cluster, lab: str, rundir: Path) -> tuple[ExistingEtcd | None, list[str]]:
    """Return the cluster that a lab's agents will use, None if it has its own, and warnings.

    Only reads. Raises WrongEnvironment if a file is unusable or no endpoint answers, EtcdFailed if etcd refuses us or
    the prefix belongs to others.
    """
    if cluster.etcd.endpoints is None:
        return None, []
    existing = _read_files(cluster.etcd, lab, rundir)
    silent = _silent(existing)
    if len(silent) == len(existing.endpoints):
        raise WrongEnvironment(f"etcd.endpoints: none answers (got {'; '.join(silent)}; want an etcd that does)")
    found = _keys(existing)
    refusals = existing.claim.refusals(found, cluster.network_json, cluster.addresses.nodes)
    if lines := [f"etcd: {line}" for line in refusals]:
        raise EtcdFailed("\n".join(lines))
    return existing, [f"warning: etcd.endpoints: {line}" for line in silent]


def _read_files(etcd: EtcdSpec, lab: str, rundir: Path) -> ExistingEtcd:
    contents: dict[str, str] = {}
    wrong = []
    with _as_caller():
        for field in FILES:
            path = getattr(etcd, field)
            try:
                contents[field] = "" if path is None else _read(path)
            except (OSError, ValueError) as failure:
                why = getattr(failure, "strerror", None) or str(failure)
                want = f"want a file of at most {LARGEST_BYTES} bytes that {_caller()} can read"
                wrong.append(f"etcd.{written_as(field)}: cannot be read (got {path}: {why}; {want})")
    if wrong:
        raise WrongEnvironment("\n".join(wrong))
    existing = ExistingEtcd(
        endpoints=etcd.endpoints or (),
        claim=PrefixClaim(_claimant(lab, rundir), etcd.prefix_of(lab), is_named=etcd.prefix is not None),
        ca=contents["ca"],
        certificate=contents["cert"],
        key=contents["key"],
        user=etcd.user or "",
        password=contents["password_file"].rstrip("\r\n"),
    )
    try:
        existing.context(GRPC)
    except (OSError, ValueError) as failure:
        want = "want PEM files: ca, and cert with its key"
        raise WrongEnvironment(f"etcd.ca, cert, key: unusable (got {in_words(failure)}; {want})") from failure
    return existing


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise OSError(0, "too large")
    return data.decode()


@contextlib.contextmanager
def _as_caller() -> Iterator[None]:
    """Have the rights of the user who called sudo: a cluster file may name any file, and root could read it."""
    user, group = sudo_user(), sudo_group()
    if os.geteuid() != 0 or user == 0:
        yield
        return
    before = os.getgroups()
    try:
        groups = os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        groups = [group]
    os.setgroups(groups)
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def _caller() -> str:
    user = sudo_user() if os.geteuid() == 0 else os.geteuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _claimant(lab: str, rundir: Path) -> Claimant:
    try:
        machine = MACHINE_ID.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return Claimant(lab=lab, host=socket.gethostname(), machine=machine, rundir=str(rundir))


def _silent(existing: ExistingEtcd) -> list[str]:
    """Return a line for each endpoint that is not healthy."""

    def look(target: tuple[str, int]) -> str | None:
        try:
            connected = socket.create_connection(target, HEALTH_LIMIT_S)
        except TimeoutError:
            return f"no answer within {HEALTH_LIMIT_S:g} s"
        except OSError as failure:
            return in_words(failure)
        return why_unhealthy(connected, target[0], existing.context(HTTP))

    with ThreadPoolExecutor(8, "ask etcd") as askers:
        answers = askers.map(look, existing.targets)
    return [f"{url}: {why}" for url, why in zip(existing.endpoints, answers, strict=True) if why]


def _keys(existing: ExistingEtcd) -> Mapping[str, bytes]:
    """Return everything below the prefix. Raises EtcdFailed."""
    said = _etcdctl(existing, ["get", "--prefix", "--write-out=json", "--", f"{existing.claim.prefix}/"])
    pairs = json.loads(said).get("kvs", [])
    return {
        base64.b64decode(one["key"]).decode(errors="replace"): base64.b64decode(one.get("value", "")) for one in pairs
    }


def _etcdctl(existing: ExistingEtcd, arguments: Sequence[str]) -> bytes:
    environment = {
        **os.environ,
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": ",".join(existing.endpoints),
        "ETCDCTL_DIAL_TIMEOUT": f"{HEALTH_LIMIT_S:g}s",
        **existing.login,
    }
    with contextlib.ExitStack() as opened:
        descriptors = []
        for variable, text in (("CACERT", existing.ca), ("CERT", existing.certificate), ("KEY", existing.key)):
            if text:
                file = opened.enter_context(open(os.memfd_create("etcdctl", os.MFD_CLOEXEC), "wb"))
                file.write(text.encode())
                file.flush()
                descriptors.append(file.fileno())
                environment[f"ETCDCTL_{variable}"] = f"/proc/self/fd/{file.fileno()}"
        try:
            done = subprocess.run(
                ["etcdctl", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=descriptors,
                timeout=COMMAND_LIMIT_S,
                check=True,
            )
        except subprocess.TimeoutExpired as failure:
            raise EtcdFailed(f"etcd: no answer within {COMMAND_LIMIT_S:g} s") from failure
        except subprocess.CalledProcessError as failure:
            said = last_words(failure.stderr.decode(errors="replace").strip())
            raise EtcdFailed(f"etcd: {said or f'etcdctl exited with {failure.returncode}'}") from failure
    return done.stdout
