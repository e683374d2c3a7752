"""Packets as interfaces see them: sockets that listen, headers, super-packets cut as a wire would have them, pcapng."""
