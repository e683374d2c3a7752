"""Notices changes of links, IPv4 addresses and IPv4 routes, so that what somebody deletes is re-made at once."""

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from types import TracebackType
from typing import Protocol, Self

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_DELNEIGH, RTM_NEWLINK, RTM_NEWNEIGH

from agent.kernel.read import BRIDGE_FAMILY, Message

# Multicast groups of NETLINK_ROUTE, linux/rtnetlink.h.
LINKS = 0x1
IPV4_ADDRESSES = 0x10
IPV4_ROUTES = 0x40
NEIGHBOURS = 0x4
IPV6_ADDRESSES = 0x100
IPV6_ROUTES = 0x400
HEADER = struct.Struct("IHHII")  # struct nlmsghdr
NEIGHBOUR = struct.Struct("4xi")  # struct ndmsg, up to the device's index
LINK = struct.Struct("4xi")  # struct ifinfomsg, likewise
FOLLOWED_ATTRIBUTES = ("IFLA_IFNAME", "IFLA_ADDRESS", "IFLA_MTU", "IFLA_MASTER")
RECEIVE_BYTES = 65536


class Readable(Protocol):
    """What can be polled."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Monitor:
    """A subscription in the caller's network namespace; costs nothing while nothing changes.

    Our own changes are reported too. Used from one thread, in that namespace where links or neighbours are chosen by
    name; only `wake` may be called from others.
    """

    def __init__(self, neighbours_of: str | tuple[str, ...] = "", *, ipv6: bool = False) -> None:
        """Subscribe. Raises OSError.

        `neighbours_of`: neighbour and forwarding entries of devices whose name begins so are followed too; those of
        other devices come and go all the time.
        """
        self._neighbours_of = neighbours_of
        self._socket = IPRoute()
        groups = LINKS | IPV4_ADDRESSES | IPV4_ROUTES | (IPV6_ADDRESSES | IPV6_ROUTES if ipv6 else 0)
        self._socket.bind(groups=groups | (NEIGHBOURS if neighbours_of else 0))
        self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_up, select.POLLIN)
        self._closed = False
        self._links: frozenset[str] | None = None
        self._last_seen: dict[int, tuple[object, ...]] = {}
        """Of links, by index: flags and the followed attributes."""

    def follow_only(self, links: Collection[str]) -> None:
        """Report only real changes of these links, and of those whose neighbours are followed.

        Pods come and go with links of their own, and the bridge is reported with each of them.
        """
        self._links = frozenset(links)

    def also_wake_for(self, source: Readable) -> None:
        """Let `wait` return when `source` is readable, too; reading it, and closing it later, is the caller's."""
        self._poll.register(source, select.POLLIN)

    def fileno(self) -> int:
        """Readable when something changed; for a poll of one's own, then `wait(0)`."""
        return int(self._socket.fileno())

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether something changed. Returns at a change, at `wake`, or after `timeout_s` seconds (None: never)."""
        self._poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_up)
        return self._drain()

    def wake(self) -> None:
        """Make a `wait` that is under way, or else the next one, return at once."""
        os.eventfd_write(self._wake_up, 1)

    def close(self) -> None:
        """Unsubscribe; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._socket.close()
            os.close(self._wake_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drain(self) -> bool:
        changed = False
        while True:
            try:
                changed = self._concerns_us(self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)) or changed
            except BlockingIOError:
                return changed
            except OSError as error:
                # More happened than the socket's buffer could hold; that is a change as well.
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True

    def _concerns_us(self, report: bytes) -> bool:
        """Whether one of the messages in `report` is of interest."""
        start = 0
        while start + HEADER.size <= len(report):
            length, kind, *_ = HEADER.unpack_from(report, start)
            if self._is_followed(kind, report[start : start + length]):
                return True
            # Messages begin at multiples of four bytes (NLMSG_ALIGNTO).
            start += max(HEADER.size, (length + 3) & ~3)
        return False

    def _is_followed(self, kind: int, message: bytes) -> bool:
        # Decoding costs far more than looking at the header, and next to all messages are about pods.
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            return self._follows_neighbours_of(_name_at(NEIGHBOUR, message))
        if kind in (RTM_NEWLINK, RTM_DELLINK) and self._links is not None:
            index, name = LINK.unpack_from(message, HEADER.size)[0], _name_at(LINK, message)
            if name is not None and index not in self._last_seen and not self._follows(name, self._links):
                return False
            return any(self._is_news(kind, one, self._links) for one in self._socket.marshal.parse(message))
        return True

    def _follows_neighbours_of(self, name: str | None) -> bool:
        # Without a name the device went with its entries, which is reported too.
        return name is not None and name.startswith(self._neighbours_of)

    def _follows(self, name: str, links: Collection[str]) -> bool:
        return name in links or (bool(self._neighbours_of) and name.startswith(self._neighbours_of))

    def _is_news(self, kind: int, message: Message, links: Collection[str]) -> bool:
        # What a bridge says of its ports has a family of its own.
        if message["family"] == BRIDGE_FAMILY:
            return False
        index, name = message["index"], message.get_attr("IFLA_IFNAME") or ""
        seen = (message["flags"], *(message.get_attr(attribute) for attribute in FOLLOWED_ATTRIBUTES))
        before = self._last_seen.pop(index, None)
        if not self._follows(name, links):
            # One that was may have another name now.
            return before is not None
        if kind == RTM_NEWLINK:
            self._last_seen[index] = seen
        return kind == RTM_DELLINK or before != seen


def _name_at(shape: struct.Struct, message: bytes) -> str | None:
    """Return the name of the device that a message is about; None when it has gone."""
    try:
        return socket.if_indextoname(shape.unpack_from(message, HEADER.size)[0])
    except OSError:
        return None
