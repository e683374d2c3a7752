"""An ordinary user for a test that runs as root: no capability, no group, and nothing of the machine is changed.

The user gets, in a mount namespace that ends with the command: /dev/net/tun writable for everybody, and a runtime
directory on a tmpfs of the user's own. `hold` keeps one such mount namespace open for several commands.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

UID = 64321
"""In nobody's range: not an account of this machine."""
RUNTIME_DIRECTORY = f"/run/user/{UID}"
PREPARE = f"""
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p {RUNTIME_DIRECTORY}
mount -t tmpfs -o mode=0700,uid={UID},gid={UID} tmpfs {RUNTIME_DIRECTORY}
mkdir -p /run/node && mount -t tmpfs -o mode=0755 tmpfs /run/node
mknod -m $TUN_MODE /run/node/tun c 10 200 && mount --bind /run/node/tun /dev/net/tun
echo ready
exec cat
"""
COMMAND_LIMIT_S = 90.0


@dataclass(slots=True)
class OrdinaryUser:
    """Somebody who is not root."""

    holder: subprocess.Popen[str]

    @classmethod
    def hold(cls, *, tun_mode: str = "0666") -> Self:
        """Make the mount namespace. Needs root."""
        pipe = subprocess.PIPE
        command = ["unshare", "--mount", "sh", "-ec", PREPARE]
        holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "TUN_MODE": tun_mode})
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        return cls(holder)

    def run(self, *command: str, cwd: Path | str = "/", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, in the mount namespace."""
        enter = ["nsenter", "--target", str(self.holder.pid), "--mount", f"--wdns={cwd}", "--"]
        become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "--"]
        known = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": RUNTIME_DIRECTORY, "HOME": "/"}
        return subprocess.run(
            [*enter, *become, *command],
            env={**known, **environment},
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def testbed(self, python: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb as the user."""
        return self.run(*python, "-m", "testbed", *arguments)

    def close(self) -> None:
        """Let the mount namespace go."""
        self.holder.communicate()
