"""What the containers of one pod share as files: shared memory and empty directories, each of a size of its own."""

import os
import shutil
import threading
from pathlib import Path

from testbed.cluster.manifest import PodSpec
from testbed.pods.tmpfs import MIB, mount_tmpfs, umount_tmpfs

EMPTY_DIRECTORY_MODE = 0o777
SHARED_MEMORY = 64 * MIB
"""As container engines and Kubernetes give it."""


class PodVolumes:
    """File systems below the pod's directory; they outlive its containers and its pause process."""

    def __init__(self, directory: Path, spec: PodSpec) -> None:
        """Nothing is made yet."""
        self._directory = directory
        # Whatever user a container runs as, it may write there (Kubernetes: emptyDir).
        self._group = spec.security_context.fs_group
        self._wanted = [(directory / "shm", SHARED_MEMORY, 0o1777)]
        self._wanted += [
            (directory / "volumes" / volume.name, volume.empty_dir.size, EMPTY_DIRECTORY_MODE)
            for volume in spec.volumes
            if volume.empty_dir is not None
        ]
        self._mounted: list[Path] = []
        self._changing = threading.Lock()

    def mount(self) -> None:
        """Make what is missing; twice is harmless. Raises OSError."""
        with self._changing:
            for place, size, mode in self._wanted:
                if place not in self._mounted:
                    mount_tmpfs(place, size, mode)
                    if self._group is not None and mode == EMPTY_DIRECTORY_MODE:
                        os.chown(place, -1, self._group)
                        place.chmod(0o2777)
                    self._mounted.append(place)

    def remove(self) -> None:
        """Let go of everything, and of the pod's directory."""
        with self._changing:
            while self._mounted:
                umount_tmpfs(self._mounted.pop())
            shutil.rmtree(self._directory, ignore_errors=True)
