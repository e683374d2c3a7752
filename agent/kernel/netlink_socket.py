"""A route socket in one network namespace, with the calls of pyroute2's IPRoute that every node needs.

A socket stays in the namespace that it was made in, whoever uses it. Not for several threads at once.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from agent.kernel import netlink_codec as codec
from agent.kernel.netlink_library import KernelRefusal, NetlinkDumpInterrupted

RECEIVE_BYTES = 1 << 18
"""More than one message of a dump; the kernel makes them 32 KiB at most."""
AT_ONCE = 64
"""Requests in one message: each is acknowledged by itself, and acknowledgements must fit into the socket's buffer."""
LIMIT_S = 20.0
"""The kernel answers at once or never; never means that a message of ours was wrong."""


class RouteSocket:
    """Names and arguments are pyroute2's. Every call raises KernelRefusal with the kernel's error, or OSError."""

    def __init__(self) -> None:
        """In the calling thread's namespace. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(LIMIT_S)
        self._sequence = 0

    def close(self) -> None:
        """Let the namespace go."""
        self._socket.close()

    # Reads

    def get_links(self) -> list[codec.Message]:
        """Every link."""
        return self._dump(codec.GET_LINK, codec.link_body())

    def get_addr(self, family: int, index: int = 0) -> list[codec.Message]:
        """Return the addresses of one device (0: of all), in the kernel's order."""
        found = self._dump(codec.GET_ADDRESS, codec.ADDRESS.pack(family, 0, 0, 0, 0))
        return [message for message in found if index in (0, message["index"])]

    def get_routes(self, family: int, table: int) -> list[codec.Message]:
        """The routes of one table."""
        found = self._dump(codec.GET_ROUTE, codec.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        return [message for message in found if (message.get_attr("RTA_TABLE") or message["table"]) == table]

    def get_neighbours(self, family: int, ifindex: int) -> list[codec.Message]:
        """The neighbours on one device; 0: on all."""
        found = self._dump(codec.GET_NEIGHBOUR, codec.NEIGHBOUR.pack(family, 0, 0, 0, 0))
        return [message for message in found if ifindex in (0, message["ifindex"])]

    def get_neighbour(self, ifindex: int, address: str) -> list[codec.Message]:
        """One neighbour of a device."""
        return self._ask(codec.GET_NEIGHBOUR, codec.neighbour_body(ifindex, address))

    # Changes

    def link(self, verb: str, **given: Any) -> list[codec.Message]:  # noqa: ANN401 - each setting has its own type
        """`get` by name, `add` with kind and settings, `set` and `del` by index."""
        if verb == "get":
            return self._ask(codec.GET_LINK, codec.link_body(attributes=codec.link_settings(given)))
        if verb == "add":
            kind, peer = given.pop("kind"), given.pop("peer", None)
            body = codec.link_body(attributes=[*codec.link_settings(given), codec.link_kind(kind, peer)])
            self._tell(codec.NEW_LINK, codec.CREATE | codec.EXCLUSIVE, body)
        elif verb == "set":
            index, state = given.pop("index"), given.pop("state", None)
            settings = codec.link_settings(given)
            if state is None:
                body = codec.link_body(index, attributes=settings)
            else:
                body = codec.LINK.pack(0, 0, index, codec.UP if state == "up" else 0, codec.UP)
            self._tell(codec.NEW_LINK, 0, body)
        else:
            self._tell(codec.DELETE_LINK, 0, codec.link_body(given["index"]))
        return []

    def brport(self, _verb: str, *, index: int, mode: int) -> None:
        """Set a bridge port's hairpin mode."""
        body = codec.link_body(index, family=codec.BRIDGE_FAMILY, attributes=[codec.hairpin(bool(mode))])
        self._tell(codec.SET_LINK, 0, body)

    def addr(self, verb: str, **given: Any) -> None:  # noqa: ANN401 - each part has its own type
        """`add` or `del`."""
        kind, flags = {
            "add": (codec.NEW_ADDRESS, codec.CREATE | codec.EXCLUSIVE),
            "del": (codec.DELETE_ADDRESS, 0),
        }[verb]
        self._tell(kind, flags, codec.address_body(given))

    def route(self, verb: str, **given: Any) -> list[codec.Message]:  # noqa: ANN401 - each part has its own type
        """`get` the route that a packet takes; `replace` or `del` one."""
        if verb == "get":
            return self._ask(codec.GET_ROUTE, codec.route_body(given))
        kind, flags = {
            "replace": (codec.NEW_ROUTE, codec.CREATE | codec.REPLACE),
            "del": (codec.DELETE_ROUTE, 0),
        }[verb]
        self._tell(kind, flags, codec.route_body(given))
        return []

    def neigh(self, _verb: str, *, dst: str, ifindex: int) -> None:
        """Delete one."""
        self._tell(codec.DELETE_NEIGHBOUR, 0, codec.neighbour_body(ifindex, dst))

    def fdb(self, verb: str, *, ifindex: int, lladdr: str, dst: str, state: int, flags: int) -> None:
        """`replace` or `del` an entry of a vxlan device's forwarding database."""
        kind, how = {
            "replace": (codec.NEW_NEIGHBOUR, codec.CREATE | codec.REPLACE),
            "del": (codec.DELETE_NEIGHBOUR, 0),
        }[verb]
        self._tell(kind, how, codec.forwarding_body(ifindex, lladdr, dst, state, flags))

    def replace_neighbours(self, ifindex: int, wanted: Mapping[str, str]) -> None:
        """Make permanent entries, MAC by address, in as few messages as they fit in."""
        entries = list(wanted.items())
        for start in range(0, len(entries), AT_ONCE):
            bodies = [
                codec.neighbour_body(ifindex, address, mac, codec.NUD_PERMANENT)
                for address, mac in entries[start : start + AT_ONCE]
            ]
            self._tell(codec.NEW_NEIGHBOUR, codec.CREATE | codec.REPLACE, *bodies)

    # Exchanges

    def _tell(self, kind: int, flags: int, *bodies: bytes) -> None:
        """Ask for changes and wait until all are made or refused; the first refusal is raised."""
        first = self._sequence + 1
        self._sequence += len(bodies)
        messages = [codec.request(kind, flags | codec.ACK, first + n, body) for n, body in enumerate(bodies)]
        self._socket.send(b"".join(messages))
        left, refusal = len(bodies), 0
        while left:
            for answer, _, sequence, body in self._receive():
                if answer == codec.ERROR and sequence >= first:
                    left -= 1
                    refusal = refusal or -codec.CODE.unpack_from(body)[0]
        if refusal:
            raise KernelRefusal(refusal, os.strerror(refusal))

    def _ask(self, kind: int, body: bytes) -> list[codec.Message]:
        """One question with one answer."""
        return self._collect(kind, 0, body)

    def _dump(self, kind: int, body: bytes) -> list[codec.Message]:
        """Everything of a kind. Raises NetlinkDumpInterrupted when it changed meanwhile."""
        return self._collect(kind, codec.DUMP, body)

    def _collect(self, kind: int, flags: int, body: bytes) -> list[codec.Message]:
        self._sequence += 1
        wanted, interrupted = self._sequence, False
        self._socket.send(codec.request(kind, flags, wanted, body))
        found = []
        while True:
            for answer, answer_flags, sequence, content in self._receive():
                if sequence != wanted:
                    continue
                interrupted |= bool(answer_flags & codec.DUMP_INTERRUPTED)
                if answer == codec.ERROR and (number := -codec.CODE.unpack_from(content)[0]):
                    raise KernelRefusal(number, os.strerror(number))
                if answer in codec.SHAPES:
                    found.append(codec.read_message(answer, content))
                if answer == codec.DONE or not flags:
                    if interrupted:
                        raise NetlinkDumpInterrupted
                    return found

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        return codec.parts(self._socket.recv(RECEIVE_BYTES))
