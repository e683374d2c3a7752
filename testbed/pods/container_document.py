"""The document from which a container is started: everything that `testbed/pods/container.py` needs to know. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed.cluster.dns import CLUSTER_DOMAIN
from testbed.cluster.downward import metadata_value
from testbed.cluster.images import Program
from testbed.cluster.manifest import Capabilities, Container, PodManifest, VolumeMount, identity_of
from testbed.cluster.name_rules import CAPABILITIES
from testbed.pods.container_log import LOG_BYTES
from testbed.processes import namespaces as ns


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """Where a pod's containers run: changes with every start of the pod."""

    pause_pid: int
    node_pid: int
    hostname: str
    address: str
    resolv_conf: str = ""
    ipv6_address: str | None = None
    node_address: str = ""
    uid: str = ""
    """Of the pod."""


def field_values(pod: PodManifest, container: Container, place: ContainerPlace) -> dict[str, str]:
    """Return the values of the fields that the container's variables refer to, by path. Pure."""
    addresses = [place.address, *([place.ipv6_address] if place.ipv6_address else [])]
    known = {
        "spec.nodeName": pod.spec.node_name or "",
        "spec.serviceAccountName": "default",
        "status.hostIP": place.node_address,
        "status.hostIPs": place.node_address,
        "status.podIP": place.address,
        "status.podIPs": ",".join(addresses),
    }
    found = {}
    for variable in container.env:
        if variable.value_from is not None and variable.value_from.field_ref is not None:
            path = variable.value_from.field_ref.field_path
            found[path] = known[path] if path in known else metadata_value(pod, place.uid, path)
    return found


def capabilities_of(given: Capabilities) -> set[int]:
    """Return the numbers of a container's capabilities. Pure."""
    keep = set(range(len(CAPABILITIES))) if "ALL" in given.add else set(ns.CONTAINER_CAPABILITIES.values())
    if "ALL" in given.drop:
        keep = set()
    keep -= {CAPABILITIES.index(name) for name in given.drop if name != "ALL"}
    return keep | {CAPABILITIES.index(name) for name in given.add if name != "ALL"}


def run_document(
    pod: PodManifest,
    container: Container,
    image: Program,
    place: ContainerPlace,
    directory: Path,
    log: Path,
    cgroups: Sequence[Path] = (),
) -> str:
    """Return the input of `testbed/pods/container.py`, as JSON; `directory` contains the pod's volumes. Pure."""
    spec, who = pod.spec, identity_of(pod.spec, container)
    document = {
        "pause_pid": place.pause_pid,
        "node_pid": place.node_pid,
        "share_pid": spec.share_process_namespace,
        "privileged": container.security_context.privileged,
        "user": who.user,
        "group": who.group,
        "groups": list(who.groups),
        "capabilities": sorted(capabilities_of(container.security_context.capabilities)),
        "escalation": container.security_context.allow_privilege_escalation,
        "read_only_root": container.security_context.read_only_root_filesystem,
        "argv": list(image.argv),
        "env": {"HOSTNAME": place.hostname, "HOME": "/root", **image.env},
        "working_dir": image.working_dir,
        "directories": list(image.directories),
        "links": dict(image.links),
        "files": {
            "/etc/hosts": _hosts(pod, place),
            "/etc/hostname": f"{place.hostname}\n",
            "/etc/resolv.conf": place.resolv_conf,
            **image.files,
        },
        "volumes": [
            # The IPC namespace is the pod's, and POSIX shared memory, a part of it, consists of files.
            _volume("lab", directory / "shm", "/dev/shm"),
            *(_volume_of_mount(pod, mount, directory) for mount in container.volume_mounts),
        ],
        "log": str(log),
        "log_bytes": LOG_BYTES,
        "cgroups": list(map(str, cgroups)),
    }
    return json.dumps(document)


def _hosts(pod: PodManifest, place: ContainerPlace) -> str:
    names = place.hostname
    if pod.spec.subdomain is not None:
        names = f"{names}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN} {names}"
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"{place.address} {names}"]
    if place.ipv6_address is not None:
        lines.append(f"{place.ipv6_address} {names}")
    lines += [f"{one.ip} {' '.join(one.hostnames)}" for one in pod.spec.host_aliases]
    return "".join(f"{line}\n" for line in lines)


def _volume(
    of: Literal["lab", "node"],
    source: Path,
    target: str,
    *,
    read_only: bool = False,
    sub_path: str | None = None,
    kind: str = "",
    from_configs: bool = False,
) -> dict[str, object]:
    return {
        "of": of,
        "source": str(source),
        "sub_path": sub_path or "",
        "target": target,
        "read_only": read_only,
        "type": kind,
        "from_configs": from_configs,
    }


def _volume_of_mount(pod: PodManifest, mount: VolumeMount, directory: Path) -> dict[str, object]:
    volume = next(volume for volume in pod.spec.volumes if volume.name == mount.name)
    how: dict[str, object] = _volume(
        "lab",
        directory / "volumes" / volume.name,
        mount.mount_path,
        read_only=mount.read_only or bool(volume.files),
        sub_path=mount.sub_path,
        from_configs=bool(volume.files),
    )
    if volume.host_path is not None:
        how |= {"of": "node", "source": volume.host_path.path, "type": volume.host_path.type}
    return how
