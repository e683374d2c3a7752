"""Readiness and liveness probes, as in Kubernetes' v1 Probe: how and how often a container is probed."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from testbed.cluster.manifest_model import LEFT_OUT_AT_ZERO, Model, Port, ProcessText
from testbed.cluster.name_rules import check_port_or_name, within, wrong

LONGEST_S = 3600
MOST_TRIES = 1000

PortOrName = Annotated[int | str, PlainValidator(check_port_or_name)]
"""A port number, or the name of one of the container's ports."""


class ExecAction(Model):
    """A command in the container; exit code 0 is a success."""

    command: Annotated[tuple[ProcessText, ...], Field(strict=False, min_length=1)]


class HttpHeader(Model):
    """One header of the request."""

    name: ProcessText
    value: ProcessText


class HttpGetAction(Model):
    """A GET from the node; a status from 200 to 399 is a success."""

    port: PortOrName
    path: str = "/"
    host: str | None = None
    """An address other than the pod's."""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: Annotated[tuple[HttpHeader, ...], Field(strict=False)] = ()


class TcpSocketAction(Model):
    """A connection from the node; success means that it is accepted."""

    port: PortOrName
    host: str | None = None


class GrpcAction(Model):
    """A request to the program's gRPC health service from the node; SERVING is a success."""

    port: Port
    service: str = ""


class SleepAction(Model):
    """A pause."""

    seconds: Annotated[int, within(0, LONGEST_S)]


class LifecycleHandler(Model):
    """An action that runs once: a command in the container, a GET from the node, or a pause."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None

    @model_validator(mode="after")
    def _one_action(self) -> "LifecycleHandler":
        fields = {"exec": self.exec, "httpGet": self.http_get, "sleep": self.sleep}
        given = [name for name, action in fields.items() if action is not None]
        if len(given) != 1:
            raise wrong("a handler has one action", " and ".join(given) or "none", "exec, httpGet or sleep")
        return self

    def as_probe(self, timeout_s: float) -> "Probe":
        """Return the same action as a single probe; not for a pause."""
        timeout = min(LONGEST_S, max(1, round(timeout_s)))
        return Probe.model_construct(exec=self.exec, http_get=self.http_get, timeout_seconds=timeout)


class Lifecycle(Model):
    """Actions after a container has started and before it is terminated."""

    post_start: LifecycleHandler | None = None
    """The container is not ready before it has succeeded; if it fails, the container is restarted."""
    pre_stop: LifecycleHandler | None = None
    """Within the grace period, before TERM."""


class Probe(Model):
    """A probe's action and its numbers; defaults are Kubernetes' own."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: Annotated[int, within(0, LONGEST_S)] = 0
    period_seconds: Annotated[int, within(1, LONGEST_S), LEFT_OUT_AT_ZERO] = 10
    timeout_seconds: Annotated[int, within(1, LONGEST_S), LEFT_OUT_AT_ZERO] = 1
    success_threshold: Annotated[int, within(1, MOST_TRIES), LEFT_OUT_AT_ZERO] = 1
    failure_threshold: Annotated[int, within(1, MOST_TRIES), LEFT_OUT_AT_ZERO] = 3

    @model_validator(mode="after")
    def _one_action(self) -> "Probe":
        fields = {"exec": self.exec, "httpGet": self.http_get, "tcpSocket": self.tcp_socket, "grpc": self.grpc}
        given = [name for name, action in fields.items() if action is not None]
        if len(given) != 1:
            raise wrong("a probe has one action", " and ".join(given) or "none", "exec, httpGet, tcpSocket or grpc")
        return self

    @property
    def port(self) -> int | str | None:
        """Return the probed port, by number or name; None for a command."""
        action = self.http_get or self.tcp_socket or self.grpc
        return action.port if action is not None else None
