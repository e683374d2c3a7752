"""Resources of containers: their limits, and the class of their pod. Pure."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from testbed.cluster.limits import LEAST_QUOTA_US, LEAST_SHARES, MOST_SHARES, PERIOD_US, SHARES_OF_A_CPU, Limits
from testbed.cluster.manifest_model import Model
from testbed.cluster.name_rules import wrong
from testbed.cluster.quantity import bytes_of, check_cpu, check_quantity, thousandths_of

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]


class ResourceList(Model):
    """An amount of CPU and of memory."""

    cpu: Annotated[int | float | str, PlainValidator(check_cpu)] | None = None
    """Processors, such as 500m or 0.5."""
    memory: Annotated[int | str, PlainValidator(check_quantity)] | None = None
    """Bytes, such as 64Mi."""

    @property
    def thousandths(self) -> int:
        """Return thousandths of a processor; 0 if it is not set."""
        return thousandths_of(self.cpu or 0)

    @property
    def bytes(self) -> int:
        """Return bytes of memory; 0 if it is not set."""
        return bytes_of(self.memory or 0)


class Resources(Model):
    """A container's resources: its maximum, and its share under contention."""

    limits: ResourceList = Field(default_factory=ResourceList)
    """A container that uses more memory is killed, one that uses more CPU waits."""
    requests: ResourceList = Field(default_factory=ResourceList)
    """The share of a busy CPU, among containers that request some; by default the limit."""

    @model_validator(mode="after")
    def _no_more_than_the_limit(self) -> "Resources":
        for name, asked, most in (
            ("cpu", self.requests.thousandths, self.limits.thousandths),
            ("memory", self.requests.bytes, self.limits.bytes),
        ):
            if most and asked > most:
                got = f"requests.{name}: {getattr(self.requests, name)}, limits.{name}: {getattr(self.limits, name)}"
                raise wrong("a request above its limit", got, "at most the limit")
        return self


def limits_of(resources: Resources) -> Limits | None:
    """Return the numbers for the kernel, by Kubernetes' rules; None if there is no limit."""
    most, asked = resources.limits, resources.requests.thousandths or resources.limits.thousandths
    quota = max(LEAST_QUOTA_US, most.thousandths * PERIOD_US // 1000) if most.thousandths else None
    shares = min(MOST_SHARES, max(LEAST_SHARES, asked * SHARES_OF_A_CPU // 1000)) if asked else None
    found = Limits(most.bytes or None, quota, shares)
    return None if found == Limits() else found


def qos_class(containers: Iterable[Resources]) -> QosClass:
    """Return Kubernetes' class of a pod with these containers."""
    every = list(containers)
    if not any(
        one.limits.bytes or one.limits.thousandths or one.requests.bytes or one.requests.thousandths for one in every
    ):
        return "BestEffort"
    return "Guaranteed" if all(map(_is_guaranteed, every)) else "Burstable"


def _is_guaranteed(one: Resources) -> bool:
    most, asked = one.limits, one.requests
    same = asked.bytes in (0, most.bytes) and asked.thousandths in (0, most.thousandths)
    return bool(most.bytes and most.thousandths and same)
