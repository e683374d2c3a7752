"""Limits of processes (`ulimit`): whether a lab fits in them, and which one caused a failure."""

import errno
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.errors import TestbedError, WrongEnvironment

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Limit:
    """One kind of limit."""

    what: str
    number: int
    """Its number in getrlimit(2)."""
    option: str
    """The option of the shell's `ulimit`, and its unit in bytes."""
    unit: int = 1


DESCRIPTORS = Limit("open files", resource.RLIMIT_NOFILE, "-n")
TASKS = Limit("processes and threads", resource.RLIMIT_NPROC, "-u")
MEMORY = Limit("address space", resource.RLIMIT_AS, "-v", 1024)
DATA = Limit("data segment", resource.RLIMIT_DATA, "-d", 1024)
FILE_SIZE = Limit("file size", resource.RLIMIT_FSIZE, "-f", 1024)
LIMITS = (DESCRIPTORS, TASKS, MEMORY, DATA, FILE_SIZE)
FOR_A_VERB = {DESCRIPTORS: 64, TASKS: 64, MEMORY: 1 * GIB}
"""Enough for any verb."""
FOR_GRPC = {limit: FOR_A_VERB[limit] for limit in (DESCRIPTORS, MEMORY)}
"""With less, grpc may abort the whole process."""


def needed(nodes: int, pods: int, *, root: bool) -> Mapping[Limit, int]:
    """Return the needs of a lab of this size: twice the maximum of measured labs. Pure."""
    tasks = {} if root else {TASKS: 200 + 30 * nodes + 15 * pods}  # the kernel does not limit root
    return {
        # The supervisor's: 80 and 6 per node; etcd requires more than 150.
        DESCRIPTORS: 256 + 12 * (nodes + pods),
        **tasks,
        # A Java program and etcd map 2.3 GiB.
        MEMORY: 4 * GIB + 20 * MIB * (nodes + pods),
        DATA: 2 * GIB,
        # etcd's log grows in steps of 64 MB, its database up to 256.
        FILE_SIZE: 512 * MIB,
    }


def too_tight(limits: Mapping[Limit, int], needed: Mapping[Limit, int]) -> list[str]:
    """Return a line for each limit below the need. Pure."""
    return [
        f"environment: the limit of {limit.what} is too low "
        f"(got {_shown(limits[limit], limit)}; want at least {_shown(least, limit)}: ulimit {limit.option})"
        for limit, least in needed.items()
        if limit in limits and limits[limit] < least
    ]


def require(needed: Mapping[Limit, int]) -> None:
    """Raise WrongEnvironment naming each limit of this process that is too low."""
    if lines := too_tight(soft_limits(), needed):
        raise WrongEnvironment("\n".join(lines))


def hard_limits() -> Mapping[Limit, int]:
    """Return this process's hard limits; unlimited ones are omitted."""
    return _set_limits(1)


def soft_limits() -> Mapping[Limit, int]:
    """Return this process's soft limits; unlimited ones are omitted."""
    return _set_limits(0)


def _set_limits(which: int) -> Mapping[Limit, int]:
    found = {limit: resource.getrlimit(limit.number)[which] for limit in LIMITS}
    return {limit: value for limit, value in found.items() if value != resource.RLIM_INFINITY}


def use_hard_limits() -> None:
    """Raise every limit of this process as far as possible."""
    for limit in LIMITS:
        _, most = resource.getrlimit(limit.number)
        resource.setrlimit(limit.number, (most, most))


def explained(failure: Exception) -> TestbedError:
    """Return the kernel's refusal as an error for the user, naming the limit if it is about one."""
    number = failure.errno if isinstance(failure, OSError) else None
    about = {errno.EMFILE: DESCRIPTORS, errno.EAGAIN: TASKS, errno.ENOMEM: MEMORY, errno.EFBIG: FILE_SIZE}
    if isinstance(failure, MemoryError):
        number = errno.ENOMEM
    elif isinstance(failure, RuntimeError):
        number = errno.EAGAIN  # can't start new thread
    limit = about.get(number or 0)
    limits = soft_limits()
    if limit is None or limit not in limits:
        return TestbedError(str(failure) or os.strerror(number or 0))
    want = f"want at least {_shown(FOR_A_VERB[limit], limit)}" if limit in FOR_A_VERB else "want more"
    got = _shown(limits[limit], limit)
    return WrongEnvironment(
        f"environment: the limit of {limit.what} is reached (got {got}; {want}: ulimit {limit.option})"
    )


def _shown(value: int, limit: Limit) -> str:
    """Format it as `ulimit` counts."""
    return str(value // limit.unit)
