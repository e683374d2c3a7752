"""Checks across a pod's fields, and between pods and nodes. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.environment import ContainerResource
from testbed.cluster.free_values import free_name, free_port
from testbed.cluster.image_names import reference
from testbed.cluster.images import RECIPES, RecipeError, difference_of, program
from testbed.cluster.manifest import Container, PodManifest, PodSpec, identity_of
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey
from testbed.cluster.placement import host_ports
from testbed.cluster.pod_template import PodOwner
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.replica_set import ReplicaSet
from testbed.cluster.validation import Source
from testbed.cluster.yaml_source import Path, dotted
from testbed.spelling import listed

TEMPLATE = ("spec", "template")
"""Path of the pods' description in a Deployment, ReplicaSet or DaemonSet."""


def check_names(
    pods: Sequence[tuple[Source, PodManifest]],
    cluster: Source | None,
    nodes: Sequence[str],
    machines: Collection[str] = (),
) -> Iterator[Problem]:
    """Check the names of pods, nodes and machines, which must differ because `exec NAME` must be unambiguous.

    `cluster` is the document that names the nodes; None for a running lab.
    """
    first: dict[ObjectKey, Source] = {}
    taken = {*nodes, *machines, *(pod.name for _, pod in pods)}
    for source, pod in pods:
        path, name = ("metadata", "name"), pod.name
        want = f"want another, such as {free_name(name, taken)}"
        if pod.key in first:
            line = first[pod.key].line(path)
            yield source.problem(path, f"a pod name twice (got {name}, line {line} has it too; {want})")
        elif pod.key.namespace != DEFAULT_NAMESPACE:
            # Its name includes its namespace.
            pass
        elif name in nodes:
            where = f", line {cluster.document.key_position(('nodes', name)).line}" if cluster else ""
            yield source.problem(path, f"a node has this name (got {name}{where}; {want})")
        elif name in machines:
            yield source.problem(path, f"a machine of the underlay has this name (got {name}; {want})")
        first.setdefault(pod.key, source)
        yield from check_node(source, ("spec",), pod.spec, nodes)


def check_node(source: Source, path: Path, spec: PodSpec, nodes: Sequence[str]) -> Iterator[Problem]:
    """Check that the node named by a pod or a template exists; `path` leads to the spec."""
    node = spec.node_name
    if node is not None and node not in nodes:
        what = f"no such node (got {shorten(node)}; want {listed(nodes, node)}){near_match(node, nodes)}"
        yield source.problem((*path, "nodeName"), what)


def check_pod(source: Source, pod: object) -> Iterator[Problem]:
    """Check the parts of one pod against each other."""
    assert isinstance(pod, PodManifest)
    yield from check_pod_spec(source, ("spec",), pod.spec)


def check_pod_spec(source: Source, path: Path, spec: PodSpec) -> Iterator[Problem]:
    """Check the same for the spec at `path`, a pod's or a template's."""
    yield from _duplicates(source, (*path, "containers"), [container.name for container in spec.containers])
    names = {container.name for container in spec.containers}
    for number, container in enumerate(spec.init_containers):
        if container.name in names:
            others = {one.name for one in spec.all_containers}
            what = (
                f"a container twice (got {container.name}; want another, such as {free_name(container.name, others)})"
            )
            yield source.problem((*path, "initContainers", number, "name"), what)
        names.add(container.name)
    yield from _duplicates(source, (*path, "volumes"), [volume.name for volume in spec.volumes])
    volumes = source.names_in((*path, "volumes"))
    places = [
        *(((*path, "initContainers", number), one) for number, one in enumerate(spec.init_containers)),
        *(((*path, "containers", number), one) for number, one in enumerate(spec.containers)),
    ]
    for here, container in places:
        yield from _check_image(source, here, container)
        yield from _check_identity(source, here, spec, container)
        yield from _check_probes(source, here, container)
        yield from _duplicates(source, (*here, "env"), [variable.name for variable in container.env])
        targets = [mount.mount_path for mount in container.volume_mounts]
        yield from _duplicates(source, (*here, "volumeMounts"), targets, key="mountPath")
        for index, mount in enumerate(container.volume_mounts):
            if volumes is not None and mount.name not in volumes:
                want = ", ".join(volumes) or f"a volume under {dotted(path)}.volumes"
                what = f"no such volume in this pod (got {mount.name}; want {want})"
                yield source.problem((*here, "volumeMounts", index, "name"), what)
    yield from _check_resource_fields(source, path, spec)
    yield from _check_ports(source, path, spec)


def check_deployment(source: Source, deployment: object) -> Iterator[Problem]:
    """Check the parts of one Deployment against each other."""
    assert isinstance(deployment, Deployment)
    yield from _check_owner(source, deployment)


def check_replica_set(source: Source, replica_set: object) -> Iterator[Problem]:
    """Check the parts of one ReplicaSet against each other."""
    assert isinstance(replica_set, ReplicaSet)
    yield from _check_owner(source, replica_set)


def check_daemon_set(source: Source, daemon_set: object) -> Iterator[Problem]:
    """Check the parts of one DaemonSet against each other."""
    assert isinstance(daemon_set, DaemonSet)
    yield from _check_owner(source, daemon_set)
    ports = host_ports(daemon_set.spec.template.spec)
    if ports and daemon_set.max_surge(1):
        got = f"maxSurge beside host port {min(ports).port}"
        what = f"two pods on one node cannot share a host port ({got}; want maxUnavailable)"
        yield source.problem(("spec", "updateStrategy", "rollingUpdate", "maxSurge"), what)


def _check_owner(source: Source, owner: PodOwner) -> Iterator[Problem]:
    """Check the rules for everything that creates pods from a template."""
    template = owner.spec.template
    labels_are_right = not source.is_doubtful((*TEMPLATE, "metadata"))
    for key, value in owner.spec.selector.match_labels.items():
        if labels_are_right and template.metadata.labels.get(key) != value:
            got = f"{key}: {value}, the template has {template.metadata.labels.get(key, 'no such label')}"
            what = f"selects none of its own pods (got {got}; want the same label under spec.template.metadata.labels)"
            yield source.problem(("spec", "selector", "matchLabels", key), what)
    if template.spec.restart_policy != "Always":
        path = (*TEMPLATE, "spec", "restartPolicy")
        what = f"pods of a {owner.kind} always restart (got {template.spec.restart_policy}; want Always)"
        yield source.problem(path, what)
    yield from check_pod_spec(source, (*TEMPLATE, "spec"), template.spec)


def _check_ports(source: Source, path: Path, spec: PodSpec) -> Iterator[Problem]:
    holders: dict[tuple[int, str], str] = {}
    on_node: dict[tuple[int, str], tuple[str | None, str]] = {}
    ports = [port for container in spec.containers for port in container.ports]
    numbers = {number for port in ports for number in (port.container_port, port.host_port) if number is not None}
    for number, container in enumerate(spec.containers):
        for index, port in enumerate(container.ports):
            place = (*path, "containers", number, "ports", index)
            key, here = (port.container_port, port.protocol), (*place, "containerPort")
            if key in holders:
                got = f"{port.container_port}/{port.protocol}, {holders[key]} has it too"
                what = f"a port twice in one pod (got {got}; want another, such as {free_port(key[0], numbers)})"
                yield source.problem(here, what)
            holders.setdefault(key, f"{container.name}, line {source.line(here)}")
            if port.host_port is None:
                continue
            if spec.host_network and port.host_port != port.container_port:
                what = f"with hostNetwork it is the containerPort (got {port.host_port}; want {port.container_port})"
                yield source.problem((*place, "hostPort"), what)
            taken = on_node.get((port.host_port, port.protocol))
            if taken is not None and (taken[0] == port.host_ip or None in (taken[0], port.host_ip)):
                what = f"a host port twice in one pod (got {port.host_port}/{port.protocol}, {taken[1]} has it too"
                yield source.problem(
                    (*place, "hostPort"), f"{what}; want another, such as {free_port(port.host_port, numbers)})"
                )
            on_node[port.host_port, port.protocol] = (port.host_ip, f"line {source.line((*place, 'hostPort'))}")


def _check_resource_fields(source: Source, path: Path, spec: PodSpec) -> Iterator[Problem]:
    """Check that containers exist whose resources are values of variables or files."""
    names = [container.name for container in spec.all_containers]
    for here, wanted in _resource_fields(path, spec):
        if wanted.container_name not in (None, *names):
            what = f"no such container in this pod (got {wanted.container_name}; want {listed(names)})"
            problem = what + near_match(wanted.container_name or "", names)
            yield source.problem((*here, "resourceFieldRef", "containerName"), problem)


def _resource_fields(path: Path, spec: PodSpec) -> Iterator[tuple[Path, ContainerResource]]:
    for key, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for number, container in enumerate(containers):
            for index, variable in enumerate(container.env):
                if variable.value_from is not None and variable.value_from.resource_field_ref is not None:
                    here = (*path, key, number, "env", index, "valueFrom")
                    yield here, variable.value_from.resource_field_ref
    for number, volume in enumerate(spec.volumes):
        of_volume: Path = (*path, "volumes", number)
        found = [] if volume.downward_api is None else [((*of_volume, "downwardAPI"), volume.downward_api.items)]
        for index, one in enumerate(volume.projected.sources if volume.projected is not None else ()):
            if one.downward_api is not None:
                found.append(((*of_volume, "projected", "sources", index, "downwardAPI"), one.downward_api.items))
        for here, items in found:
            for index, item in enumerate(items):
                if item.resource_field_ref is not None:
                    yield (*here, "items", index), item.resource_field_ref


def _check_probes(source: Source, path: Path, container: Container) -> Iterator[Problem]:
    hooks = {"postStart": container.lifecycle.post_start, "preStop": container.lifecycle.pre_stop}
    for key, hook in hooks.items():
        if hook is not None and hook.exec is not None and container.stand_in:
            what = "ignored: a stand-in does not have the image's commands"
            source.warn((*path, "lifecycle", key), what, at_key=True)
    for key, probe in container.probes.items():
        if probe.exec is not None and container.stand_in:
            source.warn((*path, key), "always succeeds: a stand-in does not have the image's commands", at_key=True)
        if probe.initial_delay_seconds and container.stand_in and key != "livenessProbe":
            source.warn((*path, key, "initialDelaySeconds"), "ignored: a stand-in answers at once", at_key=True)
        if probe.grpc is not None and container.stand_in:
            source.warn((*path, key), "succeeds with a connection: a stand-in does not speak gRPC", at_key=True)
    names = source.names_in((*path, "ports"))
    if names is None:
        return
    for key, probe in container.probes.items():
        if isinstance(probe.port, str) and probe.port not in names:
            action = "httpGet" if probe.http_get else "tcpSocket"
            want = ", ".join(names) or "a number, or the name of a port under ports"
            what = f"no port of this name in the container (got {probe.port}; want {want})"
            yield source.problem((*path, key, action, "port"), what + near_match(probe.port, names))


def _check_identity(source: Source, path: Path, spec: PodSpec, container: Container) -> Iterator[Problem]:
    identity = identity_of(spec, container)
    if identity.must_not_be_root and not identity.user:
        got = "runAsUser: 0" if identity.user == 0 else f"image {shorten(container.image)}, which runs as root"
        what = f"runAsNonRoot, and it would run as root (got {got}; want runAsUser: a number above 0)"
        yield source.problem((*path, "securityContext"), what)
    context = container.security_context
    if context.privileged and not context.allow_privilege_escalation:
        what = "privileged containers can always gain more rights (got false; want it left out, or privileged: false)"
        yield source.problem((*path, "securityContext", "allowPrivilegeEscalation"), what)


def _check_image(source: Source, path: Path, container: Container) -> Iterator[Problem]:
    if container.recipe:
        if what := difference_of(container):
            source.warn((*path, "image"), what)
        try:
            program(container)
        except RecipeError as error:
            names = [variable.name for variable in container.env]
            yield source.problem((*path, "env", names.index(error.variable), "value"), f"{error.variable}: {error}")
        return
    bare = reference(container.image).repository.rpartition("/")[2]
    want = f"{listed(RECIPES, bare)}; or a stand-in: --images '*=echo'"
    what = f"no recipe for this image, and nothing is pulled (got {shorten(container.image)}; want {want})"
    yield source.problem((*path, "image"), what + near_match(bare, RECIPES))


def _duplicates(source: Source, path: Path, names: Sequence[str], key: str = "name") -> Iterator[Problem]:
    if max(Counter(names).values(), default=0) < 2:
        return
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            line = source.line((*path, first[name], key))
            want = f"want another, such as {free_name(name, names)}"
            yield source.problem((*path, index, key), f"twice (got {name}, line {line} has it too; {want})")
        first.setdefault(name, index)
