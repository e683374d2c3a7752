"""What no field of a pod can know alone: checks inside a pod, between pods and nodes. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from testbed.cluster.manifest import Container, Pod
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.validation import Source
from testbed.pods.images import RECIPES, RecipeError, program


def check_names(
    pods: Sequence[tuple[Source, Pod]], cluster: Source, nodes: Sequence[str], machines: Collection[str] = ()
) -> Iterator[Problem]:
    """Pods, nodes and the machines of the lab have one name space, because `exec NAME` must be clear."""
    first: dict[str, Source] = {}
    for source, pod in pods:
        path, name = ("metadata", "name"), pod.name
        if name in first:
            line = first[name].line(path)
            yield source.problem(path, f"a pod name twice (got {name}, line {line} has it too; want another)")
        elif name in nodes:
            line = cluster.document.key_position(("nodes", name)).line
            yield source.problem(path, f"a node has this name (got {name}, line {line}; want another)")
        elif name in machines:
            yield source.problem(path, f"a machine of the underlay has this name (got {name}; want another)")
        first.setdefault(name, source)
        node = pod.spec.node_name
        if node is not None and node not in nodes:
            what = f"no such node (got {shorten(node)}; want {', '.join(nodes)}){near_match(node, nodes)}"
            yield source.problem(("spec", "nodeName"), what)


def check_pod(source: Source, pod: Pod) -> Iterator[Problem]:
    """What the parts of one pod say about each other."""
    spec = pod.spec
    yield from _duplicates(source, ("spec", "containers"), [container.name for container in spec.containers])
    yield from _duplicates(source, ("spec", "volumes"), [volume.name for volume in spec.volumes])
    volumes = [volume.name for volume in spec.volumes]
    holders: dict[tuple[int, str], str] = {}
    for number, container in enumerate(spec.containers):
        path = ("spec", "containers", number)
        yield from _check_image(source, path, container)
        yield from _duplicates(source, (*path, "env"), [variable.name for variable in container.env])
        targets = [mount.mount_path for mount in container.volume_mounts]
        yield from _duplicates(source, (*path, "volumeMounts"), targets, key="mountPath")
        for index, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                want = ", ".join(volumes) or "a volume under spec.volumes"
                what = f"no such volume in this pod (got {mount.name}; want {want})"
                yield source.problem((*path, "volumeMounts", index, "name"), what)
        for index, port in enumerate(container.ports):
            key, here = (port.container_port, port.protocol), (*path, "ports", index, "containerPort")
            if key in holders:
                got = f"{port.container_port}/{port.protocol}, {holders[key]} has it too"
                what = f"a port twice in one pod (got {got}; want another)"
                yield source.problem(here, what)
            holders.setdefault(key, f"{container.name}, line {source.line(here)}")


def _check_image(source: Source, path: tuple[str | int, ...], container: Container) -> Iterator[Problem]:
    if container.image in RECIPES:
        try:
            program(container)
        except RecipeError as error:
            names = [variable.name for variable in container.env]
            yield source.problem((*path, "env", names.index(error.variable), "value"), f"{error.variable}: {error}")
        return
    want = ", ".join(RECIPES)
    bare = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    reason = "nothing is pulled, an image is a recipe of the testbed" if bare != container.image else "no such recipe"
    what = f"{reason} (got {shorten(container.image)}; want {want}){near_match(bare, RECIPES)}"
    yield source.problem((*path, "image"), what)


def _duplicates(
    source: Source, path: tuple[str | int, ...], names: Sequence[str], key: str = "name"
) -> Iterator[Problem]:
    if max(Counter(names).values(), default=0) < 2:
        return
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            line = source.line((*path, first[name], key))
            yield source.problem((*path, index, key), f"twice (got {name}, line {line} has it too; want another)")
        first.setdefault(name, index)
