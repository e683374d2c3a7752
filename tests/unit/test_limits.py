"""Which limit of processes is too low for a lab, and which one a failure is about."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from testbed.errors import WrongEnvironment
from testbed.host.limits import DESCRIPTORS, FILE_SIZE, GIB, MEMORY, TASKS, explained, needed, too_tight


def test_a_limit_below_the_lab_s_need_is_named_in_the_units_of_ulimit() -> None:
    wants = needed(2, 4, root=True)
    assert too_tight({DESCRIPTORS: 64}, wants) == [
        "environment: the limit of open files is too low (got 64; want at least 328: ulimit -n)"
    ]
    assert too_tight({FILE_SIZE: 0, MEMORY: 1 * GIB}, wants) == [
        "environment: the limit of address space is too low (got 1048576; want at least 4317184: ulimit -v)",
        "environment: the limit of file size is too low (got 0; want at least 524288: ulimit -f)",
    ]


def test_no_limit_is_enough_and_so_is_the_exact_need() -> None:
    wants = needed(100, 200, root=False)
    assert too_tight({}, wants) == []
    assert too_tight(dict(wants), wants) == []
    assert set(too_tight({limit: value - 1 for limit, value in wants.items()}, wants)) >= {
        "environment: the limit of processes and threads is too low (got 6199; want at least 6200: ulimit -u)"
    }


def test_the_kernel_does_not_count_processes_of_root() -> None:
    assert TASKS not in needed(100, 200, root=True)


def test_a_refusal_of_the_kernel_names_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _number: (24, 24))
    error = explained(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert isinstance(error, WrongEnvironment)
    assert str(error) == "environment: the limit of open files is reached (got 24; want at least 64: ulimit -n)"
    for failure in (BlockingIOError(errno.EAGAIN, "fork"), RuntimeError("can't start new thread")):
        assert "the limit of processes and threads is reached (got 24;" in str(explained(failure))


def test_another_refusal_of_the_kernel_is_reported_unchanged() -> None:
    error = explained(OSError(errno.ENOSPC, "No space left on device", "/run/x"))
    assert (str(error), error.exit_code) == ("[Errno 28] No space left on device: '/run/x'", 1)


def test_too_few_descriptors_for_grpc_are_reported_before_it_aborts_the_process() -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=6:6", sys.executable, "-m", "testbed", "machines", "--etcd-endpoints=http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        3,
        "error: environment: the limit of open files is too low (got 6; want at least 64: ulimit -n)\n",
    )
