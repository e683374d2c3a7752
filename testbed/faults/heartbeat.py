"""A program that sends numbered datagrams from every pod to every other, ten times a second, and reports which arrive.

    heartbeat.py PERIOD NAME=ADDRESS …         run in the lab, where /run/netns has every pod

Each line of its output is a JSON object, one per period: `number` and `at` (seconds of CLOCK_MONOTONIC, which all
namespaces share) of the datagrams sent in it, and `got`, a list of [source, destination, number, at, whole]. A
recreated pod gets a new socket.
"""

import json
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Mapping

from testbed.cluster.object_key import key_of
from testbed.processes import namespaces
from testbed.processes.readable import readable

NETNS = "/run/netns"
PORT = 40_100
HEADER = struct.Struct("!HHIQ")
"""Source, destination, number, and the time in ns."""
CHECK = struct.Struct("!I")
FILLING = bytes(range(256))
RENEW_EVERY = 5
"""Periods between checks for recreated pods."""


class HeartbeatPods:
    """A socket in each pod's network namespace, reopened when the pod is recreated."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.names = list(addresses)
        self.addresses = list(addresses.values())
        self.sockets: list[socket.socket | None] = [None] * len(addresses)
        self._identities: list[int | None] = [None] * len(addresses)

    def renew(self) -> None:
        """Open missing sockets; close those of pods that are gone."""
        for place, name in enumerate(self.names):
            try:
                descriptor = os.open(f"{NETNS}/{key_of(name).file_name}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._forget(place)
                continue
            try:
                identity = os.fstat(descriptor).st_ino
                if identity != self._identities[place]:
                    self._forget(place)
                    namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
                    self.sockets[place] = self._open(self.addresses[place])
                    self._identities[place] = identity
            except OSError:
                self._forget(place)
            finally:
                os.close(descriptor)

    def _open(self, address: str) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.bind((address, PORT))
        return opened

    def _forget(self, place: int) -> None:
        opened = self.sockets[place]
        if opened is not None:
            opened.close()
        self.sockets[place] = self._identities[place] = None


def send(pods: HeartbeatPods, number: int) -> None:
    """Send one datagram from every pod to every other."""
    for source, opened in enumerate(pods.sockets):
        for destination, address in enumerate(pods.addresses):
            if opened is None or source == destination:
                continue
            text = HEADER.pack(source, destination, number, time.monotonic_ns()) + FILLING
            try:
                opened.sendto(text + CHECK.pack(zlib.crc32(text)), (address, PORT))
            except OSError:
                # No route, no buffer, or an ICMP error of an earlier one: this datagram is lost.
                continue


def receive(pods: HeartbeatPods, until: float) -> list[tuple[str, str, int, float, bool]]:
    """Return what arrives until then."""
    got = []
    opened = {one.fileno(): one for one in pods.sockets if one is not None}
    while (left_s := until - time.monotonic()) > 0:
        for ready in readable(opened, left_s):
            try:
                text = opened[ready].recv(2048)
            except OSError:
                continue
            source, destination, number, _ = HEADER.unpack_from(text)
            whole = CHECK.unpack(text[-CHECK.size :])[0] == zlib.crc32(text[: -CHECK.size])
            got.append((pods.names[source], pods.names[destination], number, time.monotonic(), whole))
    return got


def main() -> None:
    """Run until the output is closed."""
    period_s = float(sys.argv[1])
    pods = HeartbeatPods(dict(word.split("=") for word in sys.argv[2:]))
    number, began = 0, time.monotonic()
    while True:
        if number % RENEW_EVERY == 0:
            pods.renew()
        at = time.monotonic()
        send(pods, number)
        got = receive(pods, began + (number + 1) * period_s)
        try:
            print(json.dumps({"number": number, "at": at, "got": got}), flush=True)
        except BrokenPipeError:
            return
        number += 1


if __name__ == "__main__":
    main()
