"""Wireshark's own reading of a capture file, as an independent judge."""

import subprocess
from pathlib import Path

DECODE = ("-d", "udp.port==8285,ip")
CHECKSUMS = tuple(f"-o{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp"))


def tshark(file: Path, *fields: str, only: str = "") -> list[list[str]]:
    """Return the fields of every packet that a display filter lets through."""
    wanted = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-r", str(file), *DECODE, *CHECKSUMS, *(["-Y", only] if only else []), "-T", "fields", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]
