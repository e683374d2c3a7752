#!/usr/bin/python3 -IS
"""The `agnhost` image: the commands that manifests use.

agnhost netexec [--http-port=8080] [--udp-port=8081]    as the image echo: /hostname, /clientip, /echo?msg=
agnhost serve-hostname [--port=9376]                    the pod's name, for every path
agnhost liveness                                        port 8080: /healthz succeeds for 10 s, then answers 500
agnhost pause                                           sleeps
"""

import signal
import socket
import sys
import time
from typing import NoReturn

sys.path.insert(0, "/opt/echo")
from testbed.pods import echo_server

WELL_S = 10.0
COMMANDS = ("netexec", "serve-hostname", "liveness", "pause")


def main(words: list[str]) -> NoReturn:
    """Run one command until SIGTERM. Exits with 2 for an unknown command."""
    command, *rest = words or ["pause"]
    if command not in COMMANDS:
        print(f"error: agnhost: no such command here (got {command}; want {', '.join(COMMANDS)})", file=sys.stderr)
        sys.exit(2)
    options = dict(word.lstrip("-").partition("=")[::2] for word in rest)
    echo_server.end_on_signals()
    started = time.monotonic()

    def hostname(_method: str, _target: str, _body: bytes, _client: str) -> tuple[str, bytes]:
        return "200 OK", socket.gethostname().encode()

    def liveness(_method: str, _target: str, _body: bytes, _client: str) -> tuple[str, bytes]:
        well_s = time.monotonic() - started
        return ("200 OK", b"ok") if well_s < WELL_S else ("500 Internal Server Error", f"error: {well_s:.0f}s".encode())

    if command == "netexec":
        tcp, udp = options.get("http-port", "8080"), options.get("udp-port", "8081")
        echo_server.serve([(int(tcp), "TCP"), (int(udp), "UDP")])
    if command == "serve-hostname":
        echo_server.serve([(int(options.get("port", "9376")), "TCP")], hostname)
    if command == "liveness":
        echo_server.serve([(8080, "TCP")], liveness)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
