"""The pods of a lab: created, registered, repaired and removed; subscribers are notified of each change."""

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Network

from testbed.cgroups.groups import Groups
from testbed.cluster.dns import resolv_conf_of
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey, key_of
from testbed.lab.changes import Changes
from testbed.lab.configs import Configs
from testbed.lab.events import Events
from testbed.lab.node import LabNode
from testbed.lab.pod_watch import PodTimes, PodWatch
from testbed.pods.cni_network import CniNetwork
from testbed.pods.ipam import Ipam
from testbed.pods.pod import Pod
from testbed.pods.pod_network import BridgeNetwork, PodNetwork
from testbed.processes.warm_parent import WarmParent


class Pods:
    """Every pod of the lab, in order of creation; replaced as a whole on every change."""

    def __init__(
        self,
        nodes: Mapping[str, LabNode],
        configs: Configs,
        groups: Groups,
        events: Events,
        warm_shims: WarmParent,
        *,
        network: IPv4Network,
        dns: bool,
        uid_of: Callable[[ObjectKey, str], str],
    ) -> None:
        """`network` is all pods'. `dns`: whether containers use the cluster's DNS; without it they resolve only their
        own names. `uid_of` returns the id of a pod created at a time.
        """
        self.changed = Changes()
        """Notified when a pod or node is added or removed, becomes ready or unready, or gets other labels."""
        self.before_link: Callable[[LabNode], None] = lambda node: None
        """Called when a pod of the node has its address and no link yet. Raises OSError to make the pod retry."""
        self._nodes = nodes
        self._configs = configs
        self._groups = groups
        self._events = events
        self._warm_shims = warm_shims
        self._network = network
        self._dns = dns
        self._uid_of = uid_of
        self._pods: Mapping[ObjectKey, Pod] = {}
        self._changing = threading.Lock()
        self._networks: dict[LabNode, PodNetwork] = {}
        self._watch = PodWatch(lambda: self, self.changed)
        configs.changed.subscribe("pods", self._follow_configs)

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, key: ObjectKey) -> Pod | None:
        """Return the pod; None where there is none."""
        return self._pods.get(key)

    def named(self, name: str) -> Pod | None:
        """Return the pod called `nginx`, or `shop/nginx` outside the default namespace."""
        return self._pods.get(key_of(name))

    def names(self) -> tuple[str, ...]:
        """Return the names of all pods."""
        return tuple(map(str, self._pods))

    def on(self, node: str) -> list[Pod]:
        """Return the pods of a node."""
        return [pod for pod in self if pod.manifest.spec.node_name == node]

    def make(self, manifest: PodManifest) -> Pod:
        """Create a pod on the node that its manifest names; it is neither started nor registered yet."""
        node = self._nodes[manifest.spec.node_name or ""]
        return Pod(
            manifest,
            node,
            self._network_of(node),
            self._events.note,
            on_change=partial(self._watch.look, manifest.key),
            before_link=lambda: self.before_link(node),
            resolv_conf=resolv_conf_of(manifest, dns=self._dns),
            warm_shims=self._warm_shims,
            lookup=self._configs.find,
            groups=self._groups,
            uid_of=self._uid_of,
        )

    def _network_of(self, node: LabNode) -> PodNetwork:
        with self._changing:
            found = self._networks.get(node)
            if found is None:
                ipam = Ipam(node.rundir / "addresses")
                plugins = node.cni and CniNetwork(node, node.cni, self._network, self._events.note)
                found = self._networks[node] = plugins or BridgeNetwork(node, ipam)
            return found

    def forget_node(self, node: LabNode) -> None:
        """Forget what its pods' networks need: the node is about to be removed."""
        with self._changing:
            self._networks.pop(node, None)

    def add(self, pod: Pod) -> None:
        """Register the pod."""
        with self._changing:
            self._pods = {**self._pods, pod.key: pod}
        self.changed.notify()

    def forget(self, pod: Pod) -> None:
        """Unregister the pod, which has ended."""
        with self._changing:
            self._pods = {key: other for key, other in self._pods.items() if other is not pod}
        self.changed.notify()

    def times(self, pod: Pod) -> PodTimes:
        """Return when the conditions of a pod changed."""
        return self._watch.times(pod)

    def watch(self) -> None:
        """Detect from now on when a pod becomes ready or unready."""
        self._watch.start()

    def _follow_configs(self) -> None:
        for pod in self:
            pod.follow_configs()

    def repair_links(self, node: LabNode) -> None:
        """Reconnect the node's pods after a change of its links or subnet: their links were removed with the bridge."""
        for pod in self.on(node.name):
            try:
                pod.repair_link()
            except OSError as failure:
                self._events.note("Warning", f"pod/{pod.name}", "LinkNotMended", str(failure))
