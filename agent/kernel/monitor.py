"""Reports changes of links, IPv4 addresses and IPv4 routes, so that deleted ones are restored at once."""

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from typing import Protocol, Self

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_DELNEIGH, RTM_NEWLINK, RTM_NEWNEIGH

from agent.kernel.messages import Message
from agent.kernel.read import BRIDGE_FAMILY

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
    """Anything with a descriptor to poll."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Monitor:
    """A subscription in the caller's network namespace; costs nothing without changes.

    Our own changes are reported too. For one thread, which must be in that namespace if links or neighbours are
    selected by name; only `wake` may be called from others.
    """

    def __init__(self, neighbours_of: str | tuple[str, ...] = "", *, ipv6: bool = False) -> None:
        """Subscribe. Raises OSError.

        `neighbours_of`: prefix of devices whose neighbour and forwarding entries are followed too; those of other
        devices change all the time.
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
        """Flags and the followed attributes of links, by index."""

    def follow_only(self, links: Collection[str]) -> None:
        """Report only changes of these links, and of those whose neighbours are followed.

        Pods' links come and go, and each time the bridge is reported too.
        """
        self._links = frozenset(links)

    def also_wake_for(self, source: Readable) -> None:
        """Let `wait` also return when `source` is readable; the caller reads it, and closes it later."""
        self._poll.register(source, select.POLLIN)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when something changed; for the caller's own poll,
        then `wait(0)`.
        """
        return int(self._socket.fileno())

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether something changed: at a change, at `wake`, or after `timeout_s` seconds (None: never)."""
        self._poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_up)
        return self._drain()

    def wake(self) -> None:
        """Make the current or else the next `wait` return at once."""
        os.eventfd_write(self._wake_up, 1)

    def close(self) -> None:
        """Unsubscribe; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._socket.close()
            os.close(self._wake_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drain(self) -> bool:
        changed = False
        while True:
            try:
                changed = self._concerns_us(self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)) or changed
            except BlockingIOError:
                return changed
            except OSError as error:
                # The socket's buffer overflowed; that counts as a change.
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True

    def _concerns_us(self, report: bytes) -> bool:
        """Report whether one of the messages in `report` is of interest."""
        start = 0
        while start + HEADER.size <= len(report):
            length, kind, *_ = HEADER.unpack_from(report, start)
            if self._is_followed(kind, report[start : start + length]):
                return True
            # Messages are aligned to four bytes (NLMSG_ALIGNTO).
            start += max(HEADER.size, (length + 3) & ~3)
        return False

    def _is_followed(self, kind: int, message: bytes) -> bool:
        # Decoding is far more expensive than the header, and nearly all messages are about pods.
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            return self._follows_neighbours_of(_name_at(NEIGHBOUR, message))
        if kind in (RTM_NEWLINK, RTM_DELLINK) and self._links is not None:
            index, name = LINK.unpack_from(message, HEADER.size)[0], _name_at(LINK, message)
            if name is not None and index not in self._last_seen and not self._follows(name, self._links):
                return False
            return any(self._is_news(kind, one, self._links) for one in self._socket.marshal.parse(message))
        return True

    def _follows_neighbours_of(self, name: str | None) -> bool:
        # A device without a name was deleted with its entries, which is reported too.
        return name is not None and name.startswith(self._neighbours_of)

    def _follows(self, name: str, links: Collection[str]) -> bool:
        return name in links or (bool(self._neighbours_of) and name.startswith(self._neighbours_of))

    def _is_news(self, kind: int, message: Message, links: Collection[str]) -> bool:
        # Reports about bridge ports have their own family.
        if message["family"] == BRIDGE_FAMILY:
            return False
        index, name = message["index"], message.get_attr("IFLA_IFNAME") or ""
        seen = (message["flags"], *(message.get_attr(attribute) for attribute in FOLLOWED_ATTRIBUTES))
        before = self._last_seen.pop(index, None)
        if not self._follows(name, links):
            # It may have been renamed.
            return before is not None
        if kind == RTM_NEWLINK:
            self._last_seen[index] = seen
        return kind == RTM_DELLINK or before != seen


def _name_at(shape: struct.Struct, message: bytes) -> str | None:
    """Return the name of a message's device; None if it is gone."""
    try:
        return socket.if_indextoname(shape.unpack_from(message, HEADER.size)[0])
    except OSError:
        return None
