"""A separate wall clock for one process: its environment for libfaketime."""

from pathlib import Path

from testbed.errors import WrongEnvironment
from testbed.places import MONOTONIC_SLEEP

LIBRARY_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")


def faked_clock(offset_file: str) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by the seconds in `offset_file`, such as `+3600`; the
    file may change while it runs.

    The monotonic clock stays right, as on a machine whose time a person sets. Raises WrongEnvironment if libfaketime is
    missing.
    """
    libraries = [str(found) for place in LIBRARY_PLACES for found in Path("/").glob(place[1:])]
    if not libraries:
        raise WrongEnvironment("libfaketime is missing (apt install libfaketime)")
    return {
        # The first one first: see monotonic_sleep.c.
        "LD_PRELOAD": f"{MONOTONIC_SLEEP}:{libraries[0]}",
        "FAKETIME_TIMESTAMP_FILE": offset_file,
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",  # later versions prefix it with FAKETIME_
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
