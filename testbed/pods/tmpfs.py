"""File systems in memory with a size limit, in the lab's own mount namespace: they end with the lab."""

import contextlib
from pathlib import Path

from testbed.processes import namespaces as ns

MIB = 1 << 20
PAGE = 4096
FEWEST_FILES = 1024


def mount_tmpfs(directory: Path, size: int, mode: int) -> None:
    """Mount one of `size` bytes at `directory`, creating it if necessary.

    Raises OSError. The number of files is limited too, one per page: empty files also take memory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = max(FEWEST_FILES, size // PAGE)
    ns.mount(
        "tmpfs", str(directory), "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, f"size={size},nr_inodes={files},mode={mode:o}"
    )


def umount_tmpfs(directory: Path) -> None:
    """Unmount it, even if files in it are open; one that is already gone is success."""
    with contextlib.suppress(OSError):
        ns.umount(str(directory), ns.MNT_DETACH)
