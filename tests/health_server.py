"""A real gRPC server with a health service (grpc.health.v1), as an application has one.

python -m tests.health_server PORT FILE        serves while FILE exists, and does not where it is missing
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

SERVING, NOT_SERVING = 1, 2
METHOD = "/grpc.health.v1.Health/Check"


def health_server(status_of: Callable[[str], int | None], address: str) -> tuple[Any, int]:
    """Return a started server and its port; `status_of` a service's name, None for one that it does not know."""

    def check(request: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpc has no types
        status = status_of(request[2:].decode())
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return bytes((8, status or 0)) if status else b""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
        def service(self, details: Any) -> Any:  # noqa: ANN401 - grpc has no types
            return grpc.unary_unary_rpc_method_handler(check) if details.method == METHOD else None

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    file = Path(sys.argv[2])
    running, _ = health_server(lambda _: SERVING if file.exists() else NOT_SERVING, f"0.0.0.0:{sys.argv[1]}")
    print("serves", flush=True)
    running.wait_for_termination()
