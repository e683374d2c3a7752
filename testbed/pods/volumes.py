"""The shared files of one pod's containers: shared memory, empty directories, ConfigMaps, Secrets, the pod's fields.

Each is in memory, with its own size.
"""

import os
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

from testbed.cluster.config_objects import MOST_BYTES
from testbed.cluster.manifest import PodManifest
from testbed.pods.config_volume import write_files
from testbed.pods.pod_config import Lookup, MissingConfig, files_of
from testbed.pods.tmpfs import MIB, mount_tmpfs, umount_tmpfs

EMPTY_DIRECTORY_MODE = 0o777
"""As in Kubernetes: every user of a container may write there."""
CONFIG_DIRECTORY_MODE = 0o755
SHARED_MEMORY = 64 * MIB
"""The size in container engines and Kubernetes."""


class Filled(NamedTuple):
    """What became of the files of a pod's volumes."""

    missing: list[str]
    """Why volumes have no files yet."""
    failed: list[str]
    """Why files could not be written, which may succeed later though no object changes."""


class PodVolumes:
    """File systems below the pod's directory; they outlive its containers and its pause process."""

    def __init__(self, directory: Path, pod: PodManifest, lookup: Lookup, uid: str) -> None:
        """Mount nothing yet. `lookup` finds ConfigMaps and Secrets, `uid` is the pod's."""
        self._directory = directory
        self._lookup = lookup
        self._uid = uid
        volumes = pod.spec.volumes
        self._group = pod.spec.security_context.fs_group
        self._wanted = [(directory / "shm", SHARED_MEMORY, 0o1777)]
        self._wanted += [
            (directory / "volumes" / volume.name, volume.empty_dir.size, EMPTY_DIRECTORY_MODE)
            for volume in volumes
            if volume.empty_dir is not None
        ]
        self._wanted += [
            # During an update, old and new files exist together.
            (directory / "volumes" / volume.name, 2 * len(volume.files) * MOST_BYTES + MIB, CONFIG_DIRECTORY_MODE)
            for volume in volumes
            if volume.files
        ]
        self._mounted: list[Path] = []
        self._filled: set[str] = set()
        self._changing = threading.Lock()

    def mount(self) -> None:
        """Mount whatever is missing; twice is harmless. Raises OSError."""
        with self._changing:
            for place, size, mode in self._wanted:
                if place not in self._mounted:
                    mount_tmpfs(place, size, mode)
                    try:
                        if self._group is not None and mode == EMPTY_DIRECTORY_MODE:
                            os.chown(place, -1, self._group)
                            place.chmod(0o2777)
                    except OSError:
                        # Without root most groups cannot be given. The next try mounts again.
                        umount_tmpfs(place)
                        raise
                    self._mounted.append(place)

    def fill(self, pod: PodManifest) -> Filled:
        """Write the current files of ConfigMaps, Secrets and the pod's fields.

        If the object is gone, its files stay, as in Kubernetes.
        """
        with self._changing:
            return self._fill(pod) if self._mounted else Filled([], [])

    def _fill(self, pod: PodManifest) -> Filled:
        filled = Filled([], [])
        for volume in pod.spec.volumes:
            if not volume.files:
                continue
            try:
                files = files_of(pod, volume, self._lookup, self._uid)
                write_files(self._directory / "volumes" / volume.name, files, self._group)
                self._filled.add(volume.name)
            except OSError as failure:
                # Without the file, whose name is another at each try.
                why = f'MountVolume.SetUp failed for volume "{volume.name}": {failure.strerror or failure}'
                if volume.name not in self._filled:
                    filled.missing.append(why)
                if not isinstance(failure, MissingConfig):
                    filled.failed.append(why)
        return filled

    def remove(self) -> None:
        """Unmount everything, and remove the pod's directory."""
        with self._changing:
            while self._mounted:
                umount_tmpfs(self._mounted.pop())
            self._filled.clear()
            shutil.rmtree(self._directory, ignore_errors=True)
