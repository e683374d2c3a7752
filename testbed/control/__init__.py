"""Between lab and caller: the wire, the client, the lab's socket and the options that a lab is started with."""
