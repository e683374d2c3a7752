"""The lab's side of `testbed trace`."""

from collections.abc import Sequence

from testbed.cluster.object_key import DEFAULT_NAMESPACE
from testbed.control.answers.trace import TraceAnswer
from testbed.control.questions import TRACE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput
from testbed.lab.state import LabState
from testbed.policies.policies import Policies
from testbed.services.services import Services
from testbed.trace.run import ANSWER_LIMIT_S, Explained, TraceRequest, trace

PROTOCOLS = ("tcp", "udp", "icmp")
LARGEST = 65000  # bytes: an IPv4 packet less its headers
LONGEST_S = 60.0


def trace_verbs(state: LabState, services: Services, policies: Policies, explained: Explained) -> Sequence[AnyVerb]:
    """Return the verb."""

    def answer(request: Request) -> TraceAnswer:
        return trace(state, services, policies, asked_of(request), explained, request.client_left)

    return (Verb(TRACE, answer),)


def asked_of(request: Request) -> TraceRequest:
    """Check a request's arguments. Raises TestbedError."""
    source, destination = request.argument("source", str), request.argument("destination", str)
    protocol = request.argument("protocol", str, "icmp")
    if not source or not destination or protocol not in PROTOCOLS:
        raise InvalidInput("trace: needs source, destination and a protocol (tcp, udp or icmp)")
    size = request.argument("size", int)
    if size is not None and not 1 <= size <= LARGEST:
        raise InvalidInput(f"trace: size (got {size}; want 1 to {LARGEST} bytes)")
    timeout_s = request.argument("timeout_s", float, ANSWER_LIMIT_S)
    return TraceRequest(
        source,
        destination,
        protocol,
        _port(request, "source_port"),
        _port(request, "destination_port"),
        size,
        min(timeout_s, LONGEST_S),
        namespace=request.argument("namespace", str) or DEFAULT_NAMESPACE,
        ipv6=request.argument("ipv6", bool, False),
        with_frames=request.argument("frames", bool, False),
        with_headers=request.argument("headers", bool, False),
    )


def _port(request: Request, name: str) -> int | None:
    port = request.argument(name, int)
    if port is not None and not 1 <= port <= 65535:
        raise InvalidInput(f"trace: {name} (got {port}; want 1 to 65535)")
    return None if port is None else int(port)
