"""A program in a cable that impairs its frames, for kernels without netem.

    link_shim.py INTERFACE TAP            commands on standard input: {"delay": 100, "jitter": 50, …} per line

INTERFACE is the end of the cable, off its bridge; TAP takes its place on the bridge. Frames are forwarded in both
directions, as commanded (see `impairment.Impairment`; times in ms, the rest in percent). It ends with its standard
input. Standard library only.
"""

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from itertools import count

# include/uapi/linux/if_tun.h, if_packet.h, if_ether.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 0x0003
ETHERNET_HEADER = 14
FRAME_MAX = 65_600
BATCH = 64
"""Frames taken from one side before it is the other's turn."""


class Shim:
    """Both sides, the waiting frames, and the commands."""

    def __init__(self, interface: str, tap: str) -> None:
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # Our own frames would come back to us otherwise.
        self._wire.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._wire.bind((interface, ETH_P_ALL))
        self._wire.setblocking(False)
        self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        self._random = random.Random()
        self._waiting: list[tuple[float, int, bool, bytes]] = []
        self._numbers = count()
        self.orders: dict[str, float] = {}

    def run(self) -> None:
        """Forward frames until standard input ends."""
        poll = select.poll()
        for descriptor in (0, self._wire.fileno(), self._tap):
            poll.register(descriptor, select.POLLIN)
        print("carrying", flush=True)
        while True:
            left_ms = None
            if self._waiting:
                left_ms = max(0.0, (self._waiting[0][0] - time.monotonic()) * 1000)
            ready = [descriptor for descriptor, _ in poll.poll(left_ms)]
            if 0 in ready and not self._obey():
                return
            self._take(self._wire.fileno() in ready, self._tap in ready)
            self._send_due()

    def _obey(self) -> bool:
        line = sys.stdin.readline()
        if line:
            self.orders = json.loads(line)
            print("obeyed", flush=True)
        return bool(line)

    def _take(self, from_wire: bool, from_tap: bool) -> None:
        for _ in range(BATCH if from_wire else 0):
            try:
                frame = self._wire.recv(FRAME_MAX)
            except OSError:  # nothing more, or the cable is down
                break
            self._treat(frame, to_tap=True)
        for _ in range(BATCH if from_tap else 0):
            try:
                frame = os.read(self._tap, FRAME_MAX)
            except OSError:
                break
            self._treat(frame, to_tap=False)

    def _happens(self, what: str) -> bool:
        return self._random.random() * 100 < self.orders.get(what, 0.0)

    def _treat(self, frame: bytes, to_tap: bool) -> None:
        if self._happens("loss"):
            return
        if self._happens("corrupt") and len(frame) > ETHERNET_HEADER:
            bit = self._random.randrange(ETHERNET_HEADER * 8, len(frame) * 8)
            damaged = bytearray(frame)
            damaged[bit // 8] ^= 1 << bit % 8
            frame = bytes(damaged)
        for _ in range(2 if self._happens("duplicate") else 1):
            wait_ms = self.orders.get("delay", 0.0)
            if wait_ms:
                jitter_ms = self.orders.get("jitter", 0.0)
                wait_ms = max(0.0, wait_ms + self._random.uniform(-jitter_ms, jitter_ms))
            if not wait_ms or self._happens("reorder"):
                self._send(frame, to_tap)
            else:
                heapq.heappush(self._waiting, (time.monotonic() + wait_ms / 1000, next(self._numbers), to_tap, frame))

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, to_tap, frame = heapq.heappop(self._waiting)
            self._send(frame, to_tap)

    def _send(self, frame: bytes, to_tap: bool) -> None:
        try:
            if to_tap:
                os.write(self._tap, frame)
            else:
                self._wire.send(frame)
        except OSError:
            # A full queue or a cable that is down: lost, as on any wire.
            return


if __name__ == "__main__":
    Shim(sys.argv[1], sys.argv[2]).run()
