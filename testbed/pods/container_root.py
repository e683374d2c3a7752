"""A container's private root file system. Standard library only; loaded by a container's first process.

The root is a tmpfs. /usr is the machine's own, bound read-only; /bin, /lib and others are links into it. /etc, /var,
/tmp, /run and /dev belong to the container, and mount points are created there, so nothing outside is changed.

Order matters: everything from the old root is taken before pivot_root; everything that follows a path from the manifest
comes after it, so that no symbolic link can lead outside.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from testbed.pods import devices, kernel_view
from testbed.processes import namespaces as ns

ROOT_SIZE = "size=512m,mode=0755"
CONFIG_DATA = "..data"
"""In a volume of ConfigMaps and Secrets: the link to its current files (`testbed.pods.config_volume`)."""
STAGING = "/tmp"
"""Where the new root is assembled; hidden only in the container's own mount namespace."""
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
DIRECTORIES = (
    "etc",
    "var",
    "var/log",
    "var/lib",
    "var/cache",
    "var/spool",
    "run",
    "run/lock",
    "dev",
    "proc",
    "sys",
    "usr",
    "root",
    "home",
    "opt",
    "srv",
    "mnt",
    "media",
    "tmp",
    "var/tmp",
)
STICKY = ("tmp", "var/tmp", "run/lock")

ETC_BOUND = ("alternatives", "ssl", "java-17-openjdk", "java-21-openjdk", "ca-certificates", "terminfo")
"""Directories of /etc that programs under /usr link to; bound read-only if the machine has them."""
ETC_COPIED = ("ld.so.cache", "localtime", "mime.types", "services", "protocols", "nginx", "tomcat10", "bash.bashrc")
ETC_FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
    "tomcat:x:998:998:Apache Tomcat:/var/lib/tomcat:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nwww-data:x:33:\ntomcat:x:998:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "resolv.conf": "",
}

_REBUILT: list[str] = []
"""Directories of a read-only tree that are already covered by a file system of this container."""
QUIET = ns.MS_NOSUID | ns.MS_NODEV


def build(privileged: bool) -> None:
    """Make the container's root the root of this mount namespace, which must be the caller's own and private."""
    with contextlib.ExitStack() as opened:
        usr = _clone(opened, "/usr")
        old_tops = {name: _clone(opened, f"/{name}") for name in MERGED if _is_plain_directory(f"/{name}")}
        links = {name: os.readlink(f"/{name}") for name in MERGED if os.path.islink(f"/{name}")}
        etc = {name: _clone(opened, f"/etc/{name}") for name in ETC_BOUND if os.path.isdir(f"/etc/{name}")}
        taken = devices.take(opened, devices.DEVICES + (devices.NETWORK_DEVICES if privileged else ()))

        ns.mount("tmpfs", STAGING, "tmpfs", QUIET, ROOT_SIZE)
        for name in DIRECTORIES:
            os.mkdir(f"{STAGING}/{name}", 0o755)
        for name in STICKY:
            os.chmod(f"{STAGING}/{name}", 0o1777)
        os.symlink("/run", f"{STAGING}/var/run")
        os.symlink("/run/lock", f"{STAGING}/var/lock")
        _attach_read_only(usr, f"{STAGING}/usr")
        for name, target in links.items():
            os.symlink(target, f"{STAGING}/{name}")
        for name, tree in old_tops.items():
            os.mkdir(f"{STAGING}/{name}")
            _attach_read_only(tree, f"{STAGING}/{name}")
        _fill_etc(etc)
        devices.fill(f"{STAGING}/dev", taken)
    # They show the caller's PID and network namespaces, so it must be in both by now.
    kernel_view.mount_proc(f"{STAGING}/proc", network=privileged)
    kernel_view.mount_sys(f"{STAGING}/sys", network=privileged)
    ns.pivot_root(STAGING)
    if not privileged:
        kernel_view.hide_from_containers()


def write_files(directories: Iterable[str], files: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Create a program's directories, text files and links inside the new root; scripts are executable.

    Raises OSError with the path.
    """
    for directory in directories:
        make_directory(directory)
    for path, text in files.items():
        make_directory(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        if text.startswith("#!"):
            os.chmod(path, 0o755)
    for path, target in links.items():
        make_directory(os.path.dirname(path))
        os.symlink(target, path)


def attach_volume(tree: int, volume: Mapping[str, Any], privileged: bool) -> None:
    """Mount a detached tree at the volume's target, creating it if necessary. Raises OSError."""
    target = volume["target"]
    attributes = ns.MOUNT_ATTR_NOSUID | ns.MOUNT_ATTR_NODEV
    if volume["read_only"]:
        attributes |= ns.MOUNT_ATTR_RDONLY
    ns.set_mount_attributes(tree, attributes, recursive=True)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        make_directory(target)
    else:
        make_directory(os.path.dirname(target))
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    ns.attach_tree(tree, target)
    if volume["of"] == "node" and not privileged:
        kernel_view.close_below(os.path.realpath(target))


def make_read_only() -> None:
    """Make the container's root read-only; volumes, /dev and /proc are separate mounts."""
    for directory in ("/", *_REBUILT):
        ns.set_mount_attributes(
            directory, ns.MOUNT_ATTR_RDONLY | ns.MOUNT_ATTR_NODEV | ns.MOUNT_ATTR_NOSUID, recursive=False
        )


def open_beneath(base: str, sub_path: str) -> int:
    """Open `sub_path` below `base` without following symbolic links; create missing directories.

    A container can put links into its volumes, and this runs outside of every container. Raises OSError.
    """
    descriptor = os.open(base, os.O_PATH | os.O_CLOEXEC)
    for part in sub_path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            raise PermissionError(f"subPath {sub_path}: leads out of its volume")
        with contextlib.suppress(OSError):
            os.mkdir(part, 0o755, dir_fd=descriptor)
        inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            raise PermissionError(f"subPath {sub_path}: {part} is a symbolic link")
    return descriptor


def clone_volume(volume: Mapping[str, Any]) -> int:
    """Return a detached tree of the volume's source, from the current mount namespace. Raises OSError."""
    source = volume["source"]
    if volume["from_configs"] and volume["sub_path"]:
        # Its files are behind the lab's own links; containers cannot write there.
        source = os.path.join(source, os.readlink(os.path.join(source, CONFIG_DATA)))
    descriptor = open_beneath(source, volume["sub_path"])
    try:
        return ns.clone_tree(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def make_directory(path: str) -> None:
    """Create a directory like `mkdir -p`, also below a read-only /usr: the nearest existing directory is then rebuilt
    on a tmpfs.
    """
    present = path
    while not os.path.isdir(present):
        if os.path.lexists(present) and not os.path.islink(present):
            raise NotADirectoryError(f"{path}: {present} is not a directory")
        present = os.path.dirname(present)
    if present == path:
        return
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        _rebuild_writable(os.path.realpath(present))
    os.makedirs(path, 0o755, exist_ok=True)


def _rebuild_writable(directory: str) -> None:
    """Put a tmpfs over a read-only directory and bind everything in it back, still read-only."""
    with contextlib.ExitStack() as opened:
        entries = sorted(os.listdir(directory))
        links = {name: os.readlink(f"{directory}/{name}") for name in entries if os.path.islink(f"{directory}/{name}")}
        trees = {name: _clone(opened, f"{directory}/{name}") for name in entries if name not in links}
        ns.mount("tmpfs", directory, "tmpfs", QUIET, ROOT_SIZE)
        _REBUILT.append(directory)
        for name, target in links.items():
            os.symlink(target, f"{directory}/{name}")
        for name, tree in trees.items():
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(f"{directory}/{name}")
            else:
                _touch(f"{directory}/{name}")
            ns.attach_tree(tree, f"{directory}/{name}")


def _clone(opened: contextlib.ExitStack, path: str) -> int:
    tree = ns.clone_tree(path)
    opened.callback(os.close, tree)
    return tree


def _is_plain_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _attach_read_only(tree: int, target: str) -> None:
    ns.set_mount_attributes(tree, ns.MOUNT_ATTR_RDONLY | ns.MOUNT_ATTR_NODEV, recursive=True)
    ns.attach_tree(tree, target)


def _fill_etc(bound: Mapping[str, int]) -> None:
    for name, text in ETC_FILES.items():
        with open(f"{STAGING}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    for name in ETC_COPIED:
        if os.path.isdir(f"/etc/{name}"):
            shutil.copytree(f"/etc/{name}", f"{STAGING}/etc/{name}", symlinks=True, ignore=_closed_to_us)
        elif os.path.exists(f"/etc/{name}"):
            shutil.copyfile(f"/etc/{name}", f"{STAGING}/etc/{name}")
    for name, tree in bound.items():
        os.mkdir(f"{STAGING}/etc/{name}")
        _attach_read_only(tree, f"{STAGING}/etc/{name}")
    os.symlink("/proc/mounts", f"{STAGING}/etc/mtab")


def _closed_to_us(directory: str, names: list[str]) -> list[str]:
    """Return the names that a rootless lab may not read, such as tomcat10/server.xml; recipes have their own."""
    paths = {name: f"{directory}/{name}" for name in names}
    return [name for name, path in paths.items() if not os.path.islink(path) and not os.access(path, os.R_OK)]
