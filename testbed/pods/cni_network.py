"""Pods' networks made by CNI plugins: what a pod asks of them, and whether they did what they report."""

import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface
from typing import Any, Literal

from pydantic_core import PydanticCustomError

from agent.kernel.journal import FileJournal
from agent.kernel.kernel import Kernel
from testbed.cluster.cluster_document import CniSpec
from testbed.cluster.manifest import PodManifest
from testbed.cluster.quantity import bytes_of
from testbed.cni.answer import AddResult, Call
from testbed.cni.runtime import INTERFACE, Attachment, CniFailed, Runtime
from testbed.errors import NoSubnetYet
from testbed.pods.pod_network import PodAddresses, PodHost, failures_as_oserror, wanted_in_any_pod

CALLS_KEPT = 20
"""For `describe pod`."""
CNI_EVENT = "CNI"
"""The reason of events about calls of plugins."""
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
BANDWIDTH = {"ingress": "kubernetes.io/ingress-bandwidth", "egress": "kubernetes.io/egress-bandwidth"}
LARGEST_BURST = 2**31 - 1
"""Bits; what kubelet's runtimes ask for."""
OnEvent = Callable[[Literal["Normal", "Warning"], str, str, str], None]


@dataclass(frozen=True, slots=True)
class Linked:
    """A pod's network that the plugins made."""

    container_id: str
    subnet: IPv4Network
    """The node's, when it was made."""
    host_end: str | None = None
    """The first interface on the node, besides bridges, that the result names."""
    master: int = 0
    """Index of the bridge whose port that is; 0 for none."""


class CniNetwork:
    """Gives the pods of one node their networks through its plugins (a PodNetwork)."""

    def __init__(self, host: PodHost, spec: CniSpec, network: IPv4Network, on_event: OnEvent) -> None:
        """`network` is the whole pod network."""
        self._host = host
        self._network = network
        self._on_event = on_event
        self._runtime = Runtime(host.pid, spec.conflist, spec.plugins, spec.timeout_seconds, self._values, self._called)
        self._linked: dict[str, Linked] = {}
        """By subject."""
        self._calls: dict[str, deque[str]] = {}
        self._recording = threading.Lock()

    def reserve(self, manifest: PodManifest) -> None:
        """Return None: the plugins choose addresses. Raises OSError while the node has no subnet."""
        with failures_as_oserror(str(manifest.key)):
            _ = self._host.subnet

    def connect(self, manifest: PodManifest, pause_pid: int) -> PodAddresses:
        """Call the plugins' ADD, and compare the pod with their result. Raises OSError with a message."""
        subject, host = _subject(manifest), self._host
        journal = host.kernel.journal
        own = journal.of(manifest.key.file_name) if isinstance(journal, FileJournal) else journal
        with failures_as_oserror(str(manifest.key)), Kernel(own, pause_pid) as inside:
            attachment = self._attachment(manifest)
            self._linked[subject] = Linked(attachment.container_id, host.subnet)
            inside.converge(wanted_in_any_pod(manifest.key.file_name))
            result = self._runtime.add(attachment, pause_pid)
            try:
                addresses = _found(result, inside)
            except CniFailed as failure:
                self._on_event("Warning", subject, CNI_EVENT, str(failure))
                raise
            self._confine(subject, result, inside, addresses)
        return addresses

    def disconnect(self, manifest: PodManifest) -> None:
        """Call the plugins' DEL; their errors are events."""
        linked = self._linked.pop(_subject(manifest), None)
        if linked is None:
            return
        with contextlib.suppress(OSError):
            self._runtime.delete(linked.container_id)
        if linked.host_end is not None:
            with contextlib.suppress(OSError):
                self._host.guard.release(linked.host_end)

    def release(self, manifest: PodManifest) -> None:
        """Forget the pod's calls; DEL has released its addresses."""
        with self._recording:
            self._calls.pop(_subject(manifest), None)

    def is_current(self, manifest: PodManifest, addresses: PodAddresses) -> bool:
        """Return whether the node still has the subnet of the pod's ADD."""
        del addresses
        linked = self._linked.get(_subject(manifest))
        with contextlib.suppress(NoSubnetYet):
            return linked is None or linked.subnet == self._host.subnet
        return True

    def repair(self, manifest: PodManifest, addresses: PodAddresses) -> str:
        """Call CHECK if the node's end of the link is not as the plugins left it. Raises OSError with their reason."""
        del addresses
        linked = self._linked.get(_subject(manifest))
        if linked is None or linked.host_end is None:
            return ""
        with failures_as_oserror(str(manifest.key)):
            link = self._host.kernel.link(linked.host_end)
        if link is not None and link.master == linked.master:
            return ""
        self._runtime.check(linked.container_id)
        if link is None:
            raise CniFailed(f"{linked.host_end} is gone")
        self._linked[_subject(manifest)] = replace(linked, master=link.master)
        return ""

    def host_end(self, manifest: PodManifest) -> str | None:
        """Return the node's end, if the result named one."""
        linked = self._linked.get(_subject(manifest))
        return None if linked is None else linked.host_end

    def calls(self, manifest: PodManifest) -> list[str]:
        """Return the pod's last calls, oldest first."""
        with self._recording:
            return list(self._calls.get(_subject(manifest), ()))

    def _called(self, subject: str, call: Call, why: str) -> None:
        # What a plugin that reports success does wrong is not in its answer.
        line = f"{call.line()}; {why}" if why and call.succeeded else call.line()
        with self._recording:
            self._calls.setdefault(subject, deque(maxlen=CALLS_KEPT)).append(line)
        self._on_event("Warning" if why else "Normal", subject, CNI_EVENT, line)

    def _values(self) -> Mapping[str, str | int]:
        host = self._host
        try:
            ipv6 = host.ipv6_subnet
            return {
                "subnet": str(host.subnet),
                "gateway": str(host.gateway),
                "network": str(self._network),
                "mtu": host.overlay_mtu,
                **({} if ipv6 is None else {"ipv6_subnet": str(ipv6)}),
            }
        except NoSubnetYet as error:
            raise CniFailed(str(error), may_pass=True) from error

    def _attachment(self, manifest: PodManifest) -> Attachment:
        key = manifest.key
        container_id = f"{key.file_name}-{secrets.token_hex(4)}"
        words = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": key.namespace,
            "K8S_POD_NAME": key.name,
            "K8S_POD_INFRA_CONTAINER_ID": container_id,
        }
        return Attachment(
            subject=_subject(manifest),
            container_id=container_id,
            netns=f"/run/netns/{container_id}",
            arguments=";".join(f"{name}={value}" for name, value in words.items()),
            capabilities=capabilities(manifest, [str(self._host.subnet), *_text(self._host.ipv6_subnet)]),
        )

    def _confine(self, subject: str, result: AddResult, inside: Kernel, addresses: PodAddresses) -> None:
        """Remember the node's end; if it is a bridge's port, let the pod send only from its own addresses."""
        links = [link for name in result.node_links if (link := self._host.kernel.link(name)) is not None]
        near = next((link for link in links if link.kind != "bridge"), None)
        eth0 = inside.link(INTERFACE)
        if near is None or eth0 is None:
            why = "the result names no interface of the node: captures, policies and the guard do not see this pod"
            self._on_event("Warning", subject, CNI_EVENT, why)
            return
        self._linked[subject] = replace(self._linked[subject], host_end=near.name, master=near.master)
        if near.master:
            own = [one for one in addresses if one is not None]
            self._host.guard.confine(near.name, eth0.mac, own)


def capabilities(manifest: PodManifest, subnets: list[str]) -> dict[str, Any]:
    """Return what plugins with capabilities may get for a pod (CNI CONVENTIONS.md). Pure."""
    found: dict[str, Any] = {"ipRanges": [[{"subnet": subnet}] for subnet in subnets]}
    ports = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.lower(),
            **({} if port.host_ip is None else {"hostIP": port.host_ip}),
        }
        for container in manifest.spec.containers
        for port in container.ports
        if port.host_port is not None
    ]
    if ports:
        found["portMappings"] = ports
    annotations = dict(manifest.metadata.annotations)
    if annotations:
        found[ANNOTATIONS] = annotations
    limits: dict[str, int] = {}
    for direction, annotation in BANDWIDTH.items():
        with contextlib.suppress(PydanticCustomError):
            if annotation in annotations:
                limits |= {f"{direction}Rate": bytes_of(annotations[annotation]), f"{direction}Burst": LARGEST_BURST}
    if limits:
        found["bandwidth"] = limits
    return found


def _found(result: AddResult, inside: Kernel) -> PodAddresses:
    """Return the pod's addresses by the result, once the kernel has them too. Raises CniFailed."""
    ipv4 = [one for one in result.addresses if isinstance(one, IPv4Interface)]
    ipv6 = [one for one in result.addresses if isinstance(one, IPv6Interface)]
    if inside.link(INTERFACE) is None:
        raise CniFailed(f"CNI ADD: the plugins report success, but the pod has no {INTERFACE}")
    if not ipv4:
        raise CniFailed("CNI ADD: the plugins report success, but their result has no IPv4 address of the pod")
    if ipv4[0].ip not in {one.ip for one in inside.addresses(INTERFACE)}:
        raise CniFailed(f"CNI ADD: the result has {ipv4[0].ip}, but the pod's {INTERFACE} does not")
    return PodAddresses(ipv4[0].ip, ipv6[0].ip if ipv6 else None)


def _subject(manifest: PodManifest) -> str:
    return f"pod/{manifest.key}"


def _text(value: object | None) -> list[str]:
    return [] if value is None else [str(value)]
