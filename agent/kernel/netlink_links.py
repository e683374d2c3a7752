"""The ground of `agent.kernel.netlink`: one namespace's netlink socket, links, and how a change is made and journalled.

Only agent.kernel.netlink_library imports pyroute2.
"""

import errno
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from agent.errors import AgentError
from agent.kernel.journal import Journal
from agent.kernel.namespace import Namespace, NamespaceThread, Result
from agent.kernel.netlink_library import KernelRefusal, NetlinkDumpInterrupted, library_socket
from agent.kernel.netlink_messages import read_link
from agent.kernel.netlink_socket import RouteSocket
from agent.kernel.values import Link

ALREADY_THERE = frozenset({errno.EEXIST})
ALREADY_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})
DUMP_ATTEMPTS = 10
"""A dump that the kernel's tables changed under is asked for again; so often in a row means something is very busy."""

Act = Callable[[RouteSocket], object]


class NetlinkError(AgentError):
    """The kernel refused a read or a change; the message is the command in words and the kernel's reason."""


class LinkKernel:
    """The links of one namespace; see `agent.kernel.netlink.Kernel`, which is what others use."""

    def __init__(self, journal: Journal, netns_pid: int | None = None) -> None:
        """Open the caller's own network namespace, or that of process `netns_pid`. Raises NetlinkError.

        A process that shares the caller's namespace is refused: it has not yet moved to its own, and the changes
        meant for it would be made here.
        """
        self.journal = journal
        try:
            self._namespace = Namespace(netns_pid)
        except OSError as error:
            raise NetlinkError(f"enter the network namespace of process {netns_pid}: {error.strerror}") from error
        try:
            self._socket = self._namespace.run(RouteSocket)
        except BaseException as error:
            self._namespace.close()
            if isinstance(error, OSError):
                raise NetlinkError(f"open a netlink socket: {error.strerror}") from error
            raise
        self._using = threading.RLock()
        self._library: tuple[NamespaceThread, Any] | None = None
        """A thread there with a socket of pyroute2's, once something was asked for that only that can do."""
        self._closed = False

    def close(self) -> None:
        """Let the namespace go; safe to call twice."""
        with self._using:
            if self._closed:
                return
            self._closed = True
            if self._library is not None:
                thread, socket = self._library
                thread.run(socket.close)
                thread.close()
            self._socket.close()
            self._namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reads

    def links(self) -> tuple[Link, ...]:
        """Every interface, by index."""
        found = self._read("ip link", lambda socket: [read_link(message) for message in socket.get_links()])
        return tuple(sorted(found, key=lambda link: link.index))

    def link(self, name: str) -> Link | None:
        """The interface of that name, or None."""
        try:
            return self._ask(lambda socket: read_link(socket.link("get", ifname=name)[0]))
        except KernelRefusal as error:
            if error.code == errno.ENODEV:
                return None
            raise _refused(["ip", "link", "show", name], error) from error

    # Links

    def delete_link(self, name: str, why: str) -> None:
        """Make sure that there is no link `name`."""
        link = self.link(name)
        if link is not None:
            command = ["ip", "link", "delete", name]
            self._change(command, why, lambda socket: socket.link("del", index=link.index), ALREADY_GONE)

    def set_up(self, name: str, why: str) -> None:
        """Make sure that the link is up."""
        self._set_link(name, ["up"], why, lambda link: link.up, {"state": "up"})

    def set_down(self, name: str, why: str) -> None:
        """Make sure that the link is down."""
        self._set_link(name, ["down"], why, lambda link: not link.up, {"state": "down"})

    def set_mtu(self, name: str, mtu: int, why: str) -> None:
        """Make sure of the link's MTU (bytes)."""
        self._set_link(name, ["mtu", str(mtu)], why, lambda link: link.mtu == mtu, {"mtu": mtu})

    def set_mac(self, name: str, mac: str, why: str) -> None:
        """Make sure of the link's MAC address."""
        self._set_link(name, ["address", mac], why, lambda link: link.mac == mac.lower(), {"address": mac})

    def set_tx_queue_length(self, name: str, packets: int, why: str) -> None:
        """Make sure of how many packets may wait for the link."""
        words = ["txqueuelen", str(packets)]
        self._set_link(name, words, why, lambda link: link.tx_queue_length == packets, {"txqlen": packets})

    def set_hairpin(self, port: str, why: str) -> None:
        """Let a bridge send frames out of the port that they came in by."""
        command = ["bridge", "link", "set", "dev", port, "hairpin", "on"]
        link = self._link_or_raise(port, command)
        self._change(command, why, lambda socket: socket.brport("set", index=link.index, mode=1))

    # Common ground

    def _ask(self, act: Callable[[RouteSocket], Result]) -> Result:
        """One exchange with the kernel. Raises KernelRefusal."""
        with self._using:
            return act(self._socket)

    def _ask_library(self, act: Callable[[Any], Result]) -> Result:
        """The same by pyroute2, for what `RouteSocket` does not know. Raises KernelRefusal."""
        with self._using:
            if self._library is None:
                # pyroute2 keeps one socket per thread, opened where that thread is: all calls go through this one.
                thread = self._namespace.thread()
                self._library = thread, thread.run(library_socket)
            thread, socket = self._library
            return thread.run(lambda: act(socket))

    def _set_link(
        self, name: str, words: list[str], why: str, already: Callable[[Link], bool], parts: dict[str, object]
    ) -> None:
        command = ["ip", "link", "set", name, *words]
        link = self._link_or_raise(name, command)
        if not already(link):
            self._change(command, why, lambda socket: socket.link("set", index=link.index, **parts))

    def _exists(self, name: str, kind: str, command: Sequence[str]) -> bool:
        link = self.link(name)
        if link is not None and link.kind != kind:
            raise NetlinkError(f"{' '.join(command)}: {name} exists and is a {link.kind or 'hardware device'}")
        return link is not None

    def _link_or_raise(self, name: str, command: Sequence[str]) -> Link:
        link = self.link(name)
        if link is None:
            raise NetlinkError(f"{' '.join(command)}: there is no device {name}")
        return link

    def _read(self, what: str, read: Callable[[Any], Result]) -> Result:
        for _ in range(DUMP_ATTEMPTS):
            try:
                return self._ask(read)
            except NetlinkDumpInterrupted:
                time.sleep(0.001)
            except KernelRefusal as error:
                raise _refused(what.split(), error) from error
        raise NetlinkError(f"{what}: changed {DUMP_ATTEMPTS} times while it was read")

    def _change(self, command: list[str], why: str, act: Act, settled: frozenset[int] = frozenset()) -> None:
        try:
            self._ask(act)
        except KernelRefusal as error:
            if error.code in settled:
                return
            raise _refused(command, error) from error
        self.journal.record(command, why)


def _refused(command: Sequence[str], error: KernelRefusal) -> NetlinkError:
    return NetlinkError(f"{' '.join(command)}: {error.args[-1]}")
