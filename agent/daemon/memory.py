"""Keep a process that runs for months small: one malloc arena, and a garbage collector that ignores what never changes.

glibc gives each new thread another arena, up to eight per processor, and an arena keeps what it once needed. Every
connection to etcd and every request to our HTTP server has threads of its own, so each arena grows in turn to the size
of the largest need. One arena is enough, as none of these threads computes much. Once a large block is freed, glibc
also takes later blocks of its size from an arena, between small ones that stay: the buffers of each new overlay device
would enlarge it. malloc_info(3) shows both; mallopt(3) describes the settings.
"""

import ctypes
import gc

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""malloc.h."""
ARENAS = 1
LARGE_BYTES = 128 * 1024
"""Blocks of this size or more have pages of their own, which go back to the kernel; glibc's value at the start."""


def limit_malloc_arenas() -> None:
    """Keep malloc to one arena. Call it before the first thread starts; other C libraries than glibc ignore it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def release_free_memory() -> None:
    """Give the kernel back what malloc keeps between blocks that stay, as after many large answers at a time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def freeze_startup_objects() -> None:
    """Exclude everything that exists now from garbage collection.

    A full collection waits until new objects are a quarter of the old ones, and the modules of grpc and pyroute2 are a
    hundred thousand objects: cycles of closed connections would stay until there are many thousands of them.
    """
    gc.collect()
    gc.freeze()
    # Resets the count of old objects to none.
    gc.collect()
