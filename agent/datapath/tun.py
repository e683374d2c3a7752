"""The TUN device: a network interface whose other end is our file descriptor."""

import errno
import fcntl
import os
import struct

from agent.errors import EnvironmentMissing

CLONE_DEVICE = "/dev/net/tun"
TUNSETPERSIST = 0x400454CB  # linux/if_tun.h, as the next
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
"""No four bytes of packet information before each packet: a read returns the bare IP packet."""
IFF_VNET_HDR = 0x4000
"""Each read and write begins with a struct virtio_net_hdr, which describes pending work (checksum, segmentation)."""
NAME_BYTES = 15  # IFNAMSIZ without the closing zero

_INTERFACE_REQUEST = struct.Struct("16sH22x")

DEVICE_IS_GONE = frozenset({errno.EBADFD, errno.EBADF})
"""Errors of reads and writes after the interface was deleted."""


class TunDevice:
    """An open TUN device.

    The kernel removes it with its routes when it is closed or this process ends; after `leave` it stays.
    """

    def __init__(self, name: str, descriptor: int, *, vnet_header: bool) -> None:
        self.name = name
        self.vnet_header = vnet_header
        """Whether each packet has a virtio header."""
        self.descriptor = descriptor
        """Non-blocking; one packet per read and per write."""

    def leave(self) -> None:
        """Close our end and keep the device: without a process it drops packets until it is deleted."""
        fcntl.ioctl(self.descriptor, TUNSETPERSIST, 1)
        self.close()

    def close(self) -> None:
        """Close the device; safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def open_tun(name: str, *, vnet_header: bool = False) -> TunDevice:
    """Create a TUN device; `%d` in `name` becomes the first free number.

    Raises EnvironmentMissing. `vnet_header`: with a virtio header before each packet, unless the kernel is too old.
    """
    if len(name.encode()) > NAME_BYTES:
        raise EnvironmentMissing(f"TUN device: name too long (got {name!r}; want at most {NAME_BYTES} bytes)")
    try:
        descriptor = os.open(CLONE_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _missing(error) from error
    try:
        try:
            answer = _set_interface(descriptor, name, IFF_VNET_HDR if vnet_header else 0)
        except OSError as error:
            if not vnet_header or error.errno != errno.EINVAL:
                raise
            vnet_header = False
            answer = _set_interface(descriptor, name, 0)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EPERM, errno.EACCES):
            raise _missing(error) from error
        raise EnvironmentMissing(
            f"TUN device {name}: {error.strerror} (want: a name that no other device has)"
        ) from error
    return TunDevice(answer, descriptor, vnet_header=vnet_header)


def _set_interface(descriptor: int, name: str, more_flags: int) -> str:
    request = _INTERFACE_REQUEST.pack(name.encode(), IFF_TUN | IFF_NO_PI | more_flags)
    answer = fcntl.ioctl(descriptor, TUNSETIFF, request)
    return str(_INTERFACE_REQUEST.unpack(answer)[0].rstrip(b"\0").decode())


def _missing(error: OSError) -> EnvironmentMissing:
    if error.errno in (errno.EPERM, errno.EACCES):
        return EnvironmentMissing(f"{CLONE_DEVICE}: {error.strerror} (want: root, or the capability CAP_NET_ADMIN)")
    return EnvironmentMissing(
        f"{CLONE_DEVICE}: {error.strerror} (want: the kernel's TUN driver, `modprobe tun`; in a container also "
        f"`--device {CLONE_DEVICE}`)"
    )
