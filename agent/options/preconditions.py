"""Check the machine before the agent changes anything: rights, nft, file paths; TUN for udp."""

import errno
import os
import shutil
import stat
from pathlib import Path

from agent.errors import EnvironmentMissing
from agent.options.options import Options

CAP_NET_ADMIN = 12  # linux/capability.h
TUN = Path("/dev/net/tun")
NFT_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
"""Where nft is searched; root's PATH may omit the administrators' directories."""


def check_machine(options: Options) -> None:
    """Raise EnvironmentMissing with one line for each missing requirement; change nothing."""
    missing = _rights() + _programs(options)
    for flag, path in (("--subnet-file", options.subnet_file), ("--docker-opts-file", options.docker_opts_file)):
        if path is not None:
            missing += _place(flag, path)
    if missing:
        raise EnvironmentMissing("\n".join(missing))


def check_rights() -> None:
    """Raise EnvironmentMissing unless we may change links, addresses and rules."""
    if missing := _rights():
        raise EnvironmentMissing("\n".join(missing))


def check_tun() -> None:
    """Raise EnvironmentMissing unless TUN devices can be made; only the udp backend needs them."""
    if missing := _tun():
        raise EnvironmentMissing("\n".join(missing))


def effective_capabilities() -> int:
    """Return the process's capabilities as a bit set (man 7 capabilities); 0 if /proc does not have them."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)


def _rights() -> list[str]:
    if effective_capabilities() >> CAP_NET_ADMIN & 1:
        return []
    got = f"user {os.geteuid()} without CAP_NET_ADMIN"
    return [f"machine: no right to change the network (got {got}; want root, e.g. by sudo)"]


def _tun() -> list[str]:
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        hint = "sudo modprobe tun" if error.errno in (errno.ENOENT, errno.ENODEV) else "root, or mode 0666 on it"
        return [f"machine: cannot open {TUN} (got {error.strerror}; want a TUN driver: {hint})"]
    return []


def _programs(options: Options) -> list[str]:
    if not (options.ip_masq or options.forward_rules) or shutil.which("nft", path=NFT_PATH):
        return []
    return ["machine: the program nft is missing (got none on PATH; want it: apt install nftables)"]


def _place(flag: str, path: Path) -> list[str]:
    """Report why `path` is unusable for our file. A full or read-only disk is waited for, not refused."""
    if ".." in path.parts:
        return [f"{flag}: contains `..` (got {path}; want a path without it)"]
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        return [f"{flag}: is below something that is not a directory (got {path}; want the path of a file)"]
    except OSError as error:
        return [f"{flag}: {error.strerror} (got {path}; want a file that we may write)"]
    if stat.S_ISREG(mode):
        return []
    # Files are written by rename, which would silently replace a link or a device.
    kind = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link"}.get(stat.S_IFMT(mode), "a special file")
    return [f"{flag}: is {kind} (got {path}; want a plain file or a free path)"]
