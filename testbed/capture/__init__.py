"""Packets as interfaces see them: listening sockets, headers, super-packets cut as on a wire, pcapng."""
