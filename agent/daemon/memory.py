"""How memory is kept: for an agent that runs for months, in few places, and without garbage that waits for long.

glibc gives each new thread another arena, up to eight for each processor, and an arena keeps what it once needed. Each
connection to etcd, each question to our HTTP server comes with threads of its own, so every arena grows in turn to what
the greatest of these needs, though one is enough: none of them computes much. And once a large block was given back,
glibc takes others of its size out of an arena too, between small ones that stay: the buffers of each new overlay device
would make it larger. malloc_info(3) shows both, mallopt(3) tells of the settings.
"""

import ctypes
import gc

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""malloc.h."""
ARENAS = 1
LARGE_BYTES = 128 * 1024
"""Blocks of this size or more have pages of their own, which go back to the kernel; glibc's value at the start."""


def keep_memory_together() -> None:
    """To be called before the first thread starts; without effect where the C library is another one."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def leave_out_what_is_there() -> None:
    """Everything that exists now stays: the garbage collector need not look at it again.

    Its full run waits until what is new is a quarter of what is old, and the modules of grpc and pyroute2 are a hundred
    thousand objects: a connection's cycles would stay until there are many thousands of them.
    """
    gc.collect()
    gc.freeze()
    # Counts anew what is old: nothing.
    gc.collect()
