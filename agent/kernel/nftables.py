"""nftables of one network namespace: the program nft, the generation of the rules, and reports of changed chains.

The generation is a number that the kernel raises with every change of the namespace's rules, by any program. Reading it
costs one small netlink message, so a table can be watched without listing it. Constants: linux/netfilter/nfnetlink.h
and nf_tables.h.
"""

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Self

from agent.errors import AgentError, EnvironmentMissing

NFT_TIMEOUT_S = 10.0

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFNLGRP_NFTABLES = 7
NFT_MSG_NEWCHAIN, NFT_MSG_DELRULE, NFT_MSG_GETGEN = 3, 8, 16
NFTA_GEN_ID = 1
TABLE_AND_CHAIN = {NFT_MSG_NEWCHAIN: (1, 3), NFT_MSG_DELRULE: (1, 2)}
"""Attributes with the names: NFTA_CHAIN_TABLE and NFTA_CHAIN_NAME, NFTA_RULE_TABLE and NFTA_RULE_CHAIN."""
NLM_F_REQUEST = 1
NLMSG_HEADER = struct.Struct("=IHHII")
NFGEN_HEADER = struct.Struct(">BBH")
ATTRIBUTE_HEADER = struct.Struct("=HH")
TIMEOUT_S = 2.0
RECEIVE_BYTES = 65536


class FirewallError(AgentError):
    """nft refused; the message is nft's."""


def run_nft(arguments: list[str], script: str | None = None, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run nft. Raises EnvironmentMissing where there is none, and with `check` FirewallError when it fails."""
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise EnvironmentMissing("firewall: the program nft is missing (want: Debian package nftables)")
    # Error messages in English: `list_objects` parses them.
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        result = subprocess.run(
            [program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            timeout=NFT_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"nft {' '.join(arguments)}: no answer within {NFT_TIMEOUT_S:g} s") from error
    if check and result.returncode != 0:
        raise _refused(arguments, result)
    return result


def _refused(arguments: list[str], result: subprocess.CompletedProcess[str]) -> FirewallError:
    reason = next((line for line in result.stderr.splitlines() if line.strip()), f"exit code {result.returncode}")
    return FirewallError(f"nft {' '.join(arguments)}: {reason}")


def list_objects(*what: str) -> list[Mapping[str, Any]] | None:
    """Return what `nft -j list` prints of `what`; None when there is no such object. Raises as `run_nft` does."""
    arguments = ["-j", "list", *what]
    result = run_nft(arguments, check=False)
    if result.returncode != 0:
        if os.strerror(errno.ENOENT) in result.stderr:
            return None
        raise _refused(arguments, result)
    objects: list[Mapping[str, Any]] = json.loads(result.stdout)["nftables"]
    return objects


def generation() -> int:
    """Return the generation of the rules in the caller's network namespace. Raises OSError."""
    body = NFGEN_HEADER.pack(socket.AF_UNSPEC, 0, 0)
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
    message = NLMSG_HEADER.pack(NLMSG_HEADER.size + len(body), kind, NLM_F_REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(TIMEOUT_S)
        netlink.sendto(message, (0, 0))
        return read_generation(netlink.recv(4096))


def generation_if_known() -> int | None:
    """Return the generation; None if the kernel does not report it."""
    try:
        return generation()
    except OSError:
        return None


def read_generation(answer: bytes) -> int:
    """Return the generation from the kernel's answer. Raises OSError if it has none."""
    for kind, value in _attributes(answer, NLMSG_HEADER.size + NFGEN_HEADER.size):
        if kind == NFTA_GEN_ID and len(value) == 4:
            return int.from_bytes(value, "big")
    raise OSError("the kernel does not report the generation of its rules")


class ChainMonitor:
    """Notices when a chain is made or changed, or loses a rule: `fileno` is readable, then ask `changed`.

    In the caller's network namespace; costs nothing while rules do not change.
    """

    def __init__(self, table: str, chain: str) -> None:
        """Subscribe to reports on chains of that name, in every family. Raises OSError."""
        self._names = (table, chain)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, which is readable when rules changed, perhaps in other chains."""
        return self._socket.fileno()

    def changed(self) -> bool:
        """Return whether the chain changed since the last call; never blocks."""
        changed = False
        while True:
            try:
                changed = reports_change(self._socket.recv(RECEIVE_BYTES), self._names) or changed
            except BlockingIOError:
                return changed
            except OSError as error:
                # The socket's buffer overflowed; that counts as a change.
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reports_change(report: bytes, names: tuple[str, str]) -> bool:
    """Return whether a report is about the chain `names` (table, chain): created, changed, or one of its rules deleted.
    Pure.
    """
    start = 0
    while start + NLMSG_HEADER.size <= len(report):
        length, kind, *_ = NLMSG_HEADER.unpack_from(report, start)
        wanted = TABLE_AND_CHAIN.get(kind & 0xFF) if kind >> 8 == NFNL_SUBSYS_NFTABLES else None
        if wanted is not None:
            body = report[start + NLMSG_HEADER.size : start + length]
            found = dict(_attributes(body, NFGEN_HEADER.size))
            if tuple(found.get(number, b"").rstrip(b"\0").decode(errors="replace") for number in wanted) == names:
                return True
        start += max(NLMSG_HEADER.size, (length + 3) & ~3)
    return False


def _attributes(message: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + ATTRIBUTE_HEADER.size <= len(message):
        length, kind = ATTRIBUTE_HEADER.unpack_from(message, start)
        yield kind, message[start + ATTRIBUTE_HEADER.size : start + length]
        # Attributes are aligned to four bytes (NLA_ALIGNTO).
        start += max(ATTRIBUTE_HEADER.size, (length + 3) & ~3)
