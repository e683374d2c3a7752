"""The UDP ports whose datagrams the kernel unpacks itself (FOU, foo over UDP), of one namespace.

pyroute2 does not speak this family; constants: linux/fou.h.
"""

import errno
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any, TypeVar

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal
from pyroute2.netlink.generic import GenericNetlinkSocket

from agent.errors import EnvironmentMissing, NetlinkError
from agent.kernel.kernel import Kernel
from agent.kernel.read import ALREADY_GONE

T = TypeVar("T")

ADD, DELETE, GET = 1, 2, 3  # FOU_CMD_*
VERSION, IPV4, DIRECT = 1, 2, 1  # FOU_GENL_VERSION, AF_INET, FOU_ENCAP_DIRECT
IPIP = 4  # IPPROTO_IPIP: the payload is an IPv4 packet
MODPROBE_TIMEOUT_S = 10.0
MISSING = "this kernel cannot unpack UDP (got {}; want Debian's module fou, or another --datapath)"


class _Message(genlmsg):  # type: ignore[misc]  # pyroute2 ships no types
    nla_map = (
        ("FOU_ATTR_UNSPEC", "none"),
        ("FOU_ATTR_PORT", "be16"),
        ("FOU_ATTR_AF", "uint8"),
        ("FOU_ATTR_IPPROTO", "uint8"),
        ("FOU_ATTR_TYPE", "uint8"),
        ("FOU_ATTR_REMCSUM_NOPARTIAL", "flag"),
        ("FOU_ATTR_LOCAL_V4", "ip4addr"),
        ("FOU_ATTR_LOCAL_V6", "ip6addr"),
        ("FOU_ATTR_PEER_V4", "ip4addr"),
        ("FOU_ATTR_PEER_V6", "ip6addr"),
        ("FOU_ATTR_PEER_PORT", "be16"),
        ("FOU_ATTR_IFINDEX", "int32"),
    )


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]  # pyroute2 ships no types
    module_err_level = "debug"
    """A kernel without the family is reported by us."""

    def ask(self, command: int, flags: int, **attributes: object) -> tuple[Any, ...]:
        """Send one request; return the answers. Raises KernelRefusal."""
        message = _Message()
        message["cmd"], message["version"] = command, VERSION
        message["attrs"] = [(f"FOU_ATTR_{name.upper()}", value) for name, value in attributes.items()]
        answers: tuple[Any, ...] = self.nlm_request(message, msg_type=self.prid, msg_flags=NLM_F_REQUEST | flags)
        return answers


class FouPorts:
    """The ports in the namespace of a `Kernel` that unpack IPv4 packets."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def why_missing(self) -> str | None:
        """Return why this kernel has no such ports; None if it has. The module is loaded if it was not."""
        with suppress(EnvironmentMissing):
            self.ports()
            return None
        # The kernel does not load it on demand: it has no alias for its family.
        if _modprobe():
            self._kernel.journal.record(["modprobe", "fou"], "the kernel unpacks the datagrams of peers")
        try:
            self.ports()
        except EnvironmentMissing as error:
            return str(error)
        return None

    def ports(self) -> frozenset[tuple[IPv4Address, int]]:
        """Return address and port of each. Raises EnvironmentMissing and NetlinkError."""
        messages = self._run(["ip", "fou", "show"], lambda socket: socket.ask(GET, NLM_F_DUMP))
        return frozenset(
            (IPv4Address(message.get_attr("FOU_ATTR_LOCAL_V4") or 0), message.get_attr("FOU_ATTR_PORT"))
            for message in messages
            if message.get_attr("FOU_ATTR_IPPROTO") == IPIP
        )

    def converge(self, address: IPv4Address, port: int, why: str) -> None:
        """Make sure of this port, and of no other at `address`. Raises EnvironmentMissing and NetlinkError.

        EnvironmentMissing too when a process has the port.
        """
        present = self.ports()
        for other in sorted(number for at, number in present if at == address and number != port):
            self.remove(address, other, "the overlay has another port")
        if (address, port) in present:
            return
        try:
            self._change("add", address, port, why)
        except KernelRefusal as error:
            if error.code == errno.EADDRINUSE:
                raise EnvironmentMissing(
                    f"UDP port {port} on {address}: already in use (want: a free port; Backend.Port changes it)"
                ) from error
            raise NetlinkError(f"{' '.join(_words('add', address, port))}: {error.args[-1]}") from error

    def remove(self, address: IPv4Address, port: int, why: str) -> None:
        """Make sure that the kernel does not unpack this port. Raises EnvironmentMissing and NetlinkError."""
        try:
            self._change("del", address, port, why)
        except KernelRefusal as error:
            if error.code not in ALREADY_GONE and error.code != errno.EINVAL:
                raise NetlinkError(f"{' '.join(_words('del', address, port))}: {error.args[-1]}") from error

    def _change(self, verb: str, address: IPv4Address, port: int, why: str) -> None:
        words = _words(verb, address, port)
        parts = {"port": port, "af": IPV4, "ipproto": IPIP, "type": DIRECT, "local_v4": str(address)}
        command = ADD if verb == "add" else DELETE
        self._visit(lambda socket: socket.ask(command, NLM_F_ACK, **parts))
        self._kernel.journal.record(words, why)

    def _run(self, command: list[str], act: Callable[[_Socket], T]) -> T:
        try:
            return self._visit(act)
        except KernelRefusal as error:
            raise NetlinkError(f"{' '.join(command)}: {error.args[-1]}") from error

    def _visit(self, act: Callable[[_Socket], T]) -> T:
        def visit() -> T:
            with _Socket() as socket:
                try:
                    socket.bind("fou", _Message)
                except KernelRefusal as error:
                    raise EnvironmentMissing(MISSING.format(error.args[-1])) from error
                return act(socket)

        return self._kernel.run_inside(visit)


def _modprobe() -> bool:
    """Load the module; return whether modprobe succeeded."""
    program = shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")
    if program is None:
        return False
    try:
        done = subprocess.run([program, "--quiet", "fou"], timeout=MODPROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _words(verb: str, address: IPv4Address, port: int) -> list[str]:
    return ["ip", "fou", verb, "port", str(port), "ipproto", str(IPIP), "local", str(address)]
