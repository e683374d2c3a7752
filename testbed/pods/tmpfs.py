"""File systems in memory with a size, in the lab's own mount namespace: they end with the lab, whatever ends it."""

import contextlib
from pathlib import Path

from testbed.processes import namespaces as ns

MIB = 1 << 20
PAGE = 4096
FEWEST_FILES = 1024


def mount_tmpfs(directory: Path, size: int, mode: int) -> None:
    """Mount one of `size` bytes at `directory`, which is made where it is missing. Raises OSError.

    Files count too, a page each: one without content takes memory all the same.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = max(FEWEST_FILES, size // PAGE)
    ns.mount(
        "tmpfs", str(directory), "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, f"size={size},nr_inodes={files},mode={mode:o}"
    )


def umount_tmpfs(directory: Path) -> None:
    """Take it away, also from under those who still have files open there; «already gone» is success."""
    with contextlib.suppress(OSError):
        ns.umount(str(directory), ns.MNT_DETACH)
