"""Tells a service manager that we are ready: systemd's protocol (man 3 sd_notify), which others speak too."""

import os
import socket


def notify_service_manager(state: str) -> None:
    """Send `state`, e.g. `READY=1`, where NOTIFY_SOCKET says; nothing happens without it or when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            # A leading @ stands for the abstract namespace.
            sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            return
