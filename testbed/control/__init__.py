"""The connection between lab and caller: the wire format, the client, the lab's socket and the lab's options."""
