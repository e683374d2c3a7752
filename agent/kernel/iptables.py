"""The iptables programs, if installed: nft neither shows their comments nor supports the legacy tables."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.kernel.nftables import FirewallError

IPTABLES_TIMEOUT_S = 10.0
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def find_program(name: str) -> str | None:
    """Return the program's path; None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=PATH)


def nft_program(family: str) -> str | None:
    """Return the path of the program that keeps its rules in nftables; None where it is not installed."""
    return find_program(f"{family}tables-nft") or find_program(f"{family}tables")


def legacy_tables(family: str) -> list[str]:
    """Return the loaded legacy tables: a query by iptables-legacy would load one."""
    try:
        return Path(f"/proc/thread-self/net/{family}_tables_names").read_text(encoding="ascii").split()
    except OSError:
        return []


def run_iptables(*command: str) -> str:
    """Run iptables and return what it printed. Raises FirewallError."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            # A comment may hold any bytes, and a command that deletes its rule must have the same.
            errors="surrogateescape",
            timeout=IPTABLES_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"{' '.join(command)}: no answer within {IPTABLES_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise FirewallError(f"{' '.join(command)}: {reason}")
    return done.stdout


def comment_of(words: Sequence[str]) -> str:
    """Return the comment of a rule in the output of `iptables -S`, split into words; empty without one. Pure."""
    return "".join(words[words.index("--comment") + 1 :][:1]) if "--comment" in words else ""
