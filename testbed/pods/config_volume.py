"""A directory of files that change atomically, as kubelet writes ConfigMaps, Secrets and a pod's fields.

..2024_05_01_10_00_00.123/nginx.conf     the files
..data -> ..2024_05_01_10_00_00.123      replaced in one step when they change
nginx.conf -> ..data/nginx.conf          what containers see
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import strftime

from testbed.pods.container_root import CONFIG_DATA as DATA
from testbed.pods.pod_config import VolumeFile

READABLE = 0o440
DIRECTORY_MODE = 0o755
"""Whatever the lab's own umask is."""


def write_files(volume: Path, files: Mapping[str, VolumeFile], group: int | None) -> bool:
    """Write exactly these files to the volume; return False if they are there already. Raises OSError.

    `group` may read all of them. A call that failed half way is completed by the next.
    """
    wanted = {
        path: VolumeFile(file.data, file.mode if group is None else file.mode | READABLE)
        for path, file in files.items()
    }
    current = _current(volume)
    is_new = current is None or _read(current) != wanted
    if current is None or is_new:
        current = _replace_data(volume, wanted, group)
    tops = {path.split("/")[0] for path in wanted}
    missing = [top for top in tops if not (volume / top).is_symlink()]
    for top in missing:
        _link(volume / top, f"{DATA}/{top}")
    stale = [entry for entry in os.listdir(volume) if entry not in {DATA, current.name, *tops}]
    for entry in stale:
        _remove(volume / entry)
    return bool(is_new or missing or stale)


def _replace_data(volume: Path, files: Mapping[str, VolumeFile], group: int | None) -> Path:
    """Let ..data lead to a new directory with these files; return it."""
    new = Path(tempfile.mkdtemp(dir=volume, prefix=strftime("..%Y_%m_%d_%H_%M_%S.")))
    try:
        _fill(new, files, group)
        _link(volume / DATA, new.name)
    except OSError:
        shutil.rmtree(new)
        raise
    return new


def _fill(directory: Path, files: Mapping[str, VolumeFile], group: int | None) -> None:
    for path, file in files.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(file.data)
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, file.mode)
    for inner in (directory, *(one for one in directory.rglob("*") if one.is_dir())):
        inner.chmod(DIRECTORY_MODE)


def _current(volume: Path) -> Path | None:
    with contextlib.suppress(FileNotFoundError):
        return volume / os.readlink(volume / DATA)
    return None


def _read(directory: Path) -> dict[str, VolumeFile]:
    return {
        str(file.relative_to(directory)): VolumeFile(file.read_bytes(), file.stat().st_mode & 0o777)
        for file in directory.rglob("*")
        if file.is_file()
    }


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


def _link(place: Path, target: str) -> None:
    draft = place.with_name(f"..{place.name}_tmp")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(place)
