"""Allocates a pod's address: the lowest free one of its node's leased subnet, with one file per address.

The files (`<directory>/10.0.46.2`, containing the pod's name) are the only state, so a reservation survives the pod and
the program. Several threads and processes may allocate in the same directory.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from testbed.plain_files import plain, read_plain

LARGEST_NAME = 1024
"""Bytes; pods' names have at most 253 characters."""


class NoFreeAddress(Exception):
    """Every pod address of the subnet is taken: delete a pod, or choose another node."""


def choose_address(subnet: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address:
    """Return the lowest address of `subnet` that is not in `taken`.

    Never the subnet's own address (the overlay device has it), the one after it (the bridge has it) or the broadcast
    address. Raises NoFreeAddress.
    """
    lowest, broadcast = int(subnet.network_address) + 2, int(subnet.broadcast_address)
    used = {int(address) for address in taken}
    for candidate in range(lowest, broadcast):
        if candidate not in used:
            return IPv4Address(candidate)
    raise NoFreeAddress(f"subnet {subnet} has no free pod address (all {max(0, broadcast - lowest)} are taken)")


class Ipam:
    """The address reservations of one node (IPAM: IP address management, CNI's word)."""

    def __init__(self, directory: Path) -> None:
        """`directory` is created if missing. Raises OSError."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def reservations(self) -> dict[IPv4Address, str]:
        """Return every reserved address and its pod; other files are ignored."""
        found = {}
        for path in self._directory.iterdir():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found[IPv4Address(path.name)] = read_plain(path, LARGEST_NAME).decode().strip()
        return found

    def allocate(
        self, pod: str, subnet: IPv4Network, answers: Callable[[IPv4Address], bool] = lambda _: False
    ) -> IPv4Address:
        """Return the address of `pod` in `subnet`: its current one, else the lowest free one, which is then reserved.

        `answers` reports whether something without a reservation uses an address; such an address is skipped. A
        reservation of the pod outside the subnet (its node got another lease) is released. Raises NoFreeAddress,
        OSError.
        """
        own = [address for address, owner in self.reservations().items() if owner == pod]
        kept = sorted(address for address in own if address in subnet)
        for address in own:
            if address not in kept[:1]:
                self._remove(address)
        if kept:
            return kept[0]
        foreign: set[IPv4Address] = set()
        while True:
            address = choose_address(subnet, self.reservations().keys() | foreign)
            if answers(address):
                foreign.add(address)
            elif self._reserve(address, pod):
                return address

    def release(self, pod: str) -> None:
        """Release every address of `pod`; having none is success."""
        for address, owner in self.reservations().items():
            if owner == pod:
                self._remove(address)

    def _reserve(self, address: IPv4Address, pod: str) -> bool:
        """Return True if the address now belongs to the pod; False if another was faster.

        A link is created exclusively, as with O_EXCL, and the file has its text from the start.
        """
        draft = self._directory / f".{pod}.{os.getpid()}.{threading.get_ident()}"
        draft.unlink(missing_ok=True)
        with open(draft, "x", encoding="utf-8", opener=plain) as file:
            file.write(f"{pod}\n")
        try:
            os.link(draft, self._directory / str(address))
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _remove(self, address: IPv4Address) -> None:
        (self._directory / str(address)).unlink(missing_ok=True)
