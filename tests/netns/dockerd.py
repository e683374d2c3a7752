"""A real dockerd on a machine of a test: everything that it keeps is in the machine's own mounts and namespaces."""

import io
import itertools
import os
import re
import signal
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.netns.agents import run, wait_until
from tests.netns.machine import Machine

DOCKER = "/usr/bin/docker"
"""Debian's; what is in /usr/local may be of another release."""
APPLETS = ("cat", "hostname", "httpd", "ip", "nc", "ping", "sh", "sleep", "wget")
CGROUPS = Path("/sys/fs/cgroup")
OWN_ETC = "lowerdir=/etc,upperdir=/run/etc/new,workdir=/run/etc/work"
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_numbers = itertools.count()


def need_dockerd() -> None:
    """Skip the test where dockerd is missing; scripts/install --tests installs it."""
    if not Path("/usr/sbin/dockerd").exists():
        pytest.skip("no dockerd here (scripts/install --tests installs docker.io)")


def image() -> bytes:
    """Return a root file system for `docker import`: Debian's busybox with its libraries."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        libraries = re.findall(r"/lib\S+", run("ldd", "/bin/busybox").stdout)
        for path in ("/bin/busybox", *libraries):
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()


def own_etc(machine: Machine) -> None:
    """Let programs on the machine write into /etc without changing the host's."""
    machine.run("mkdir", "-p", "/run/etc/new", "/run/etc/work")
    machine.run("mount", "-t", "overlay", "overlay", "-o", OWN_ETC, "/etc")


class ControlGroups:
    """Where a container engine of a test puts its containers' control groups, in each hierarchy of the host."""

    def __init__(self) -> None:
        self.name = f"docker-of-a-test-{os.getpid()}-{next(_numbers)}"

    def remove(self) -> None:
        """Remove them once their processes have ended."""
        wait_until(self._removed, 30, "the control groups are gone", self._present)

    def _present(self) -> list[Path]:
        tops = [CGROUPS / self.name, *CGROUPS.glob(f"*/{self.name}")]
        return [group for top in tops if top.is_dir() for group in [*sorted(top.rglob("*/"), reverse=True), top]]

    def _removed(self) -> bool:
        for group in self._present():
            with suppress(OSError):  # a process in it is still ending
                group.rmdir()
        return not self._present()


class Docker:
    """dockerd and its containers on one machine. Its processes are in a PID namespace that ends with it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._groups = ControlGroups()
        self._log = machine.directory / f"{machine.name}-dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        # dockerd keeps a key in /etc/docker, whatever its options.
        own_etc(machine)

    def start(self, options: str = ". /run/docker_opts.env") -> None:
        """Run `dockerd $DOCKER_OPTS` with what the agent wrote; with `true` as it is without an agent."""
        own = f"--data-root=/run/docker-data --storage-driver=vfs --cgroup-parent=/{self._groups.name}"
        command = f"{options} && exec dockerd $DOCKER_OPTS {own}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.machine.enter, *OWN_PROCESSES, "sh", "-c", command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 30, f"dockerd answers on {self.machine.name}", lambda: self._log.read_text()[-3000:])
        if not self.cli("images", "-q", "busybox"):
            subprocess.run(
                [*self.machine.enter, DOCKER, "import", "-", "busybox"],
                input=image(),
                check=True,
                stdout=subprocess.DEVNULL,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        return self.machine.run(DOCKER, "info", check=False).returncode == 0

    def cli(self, *words: str) -> str:
        """Return what the command `docker` prints; it has to succeed."""
        done = self.machine.run(DOCKER, *words)
        return (done.stdout + done.stderr).strip()

    def succeeds(self, *words: str) -> bool:
        """Return whether it ends with 0."""
        return self.machine.run(DOCKER, *words, check=False).returncode == 0

    def address(self, container: str) -> str:
        """Return the container's address on docker0."""
        return self.cli("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container)

    def stop(self) -> None:
        """End dockerd as its unit does; its containers end too."""
        if self._process is None or self._process.poll() is not None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        self._process.wait(30)

    def close(self) -> None:
        """End everything, and remove the control groups that dockerd made for its containers."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._groups.remove()
