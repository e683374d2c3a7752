"""The runtime of one node: ADD, CHECK, DEL, GC, STATUS and VERSION through the chain (CNI SPEC.md, section 3).

The configuration and the plugins are read at every ADD, so an edited plugin is used from the next pod on. DEL and CHECK
use the configuration of the ADD. Results are cached below the node's /var/lib/cni/results, as libcni has them.
"""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from testbed.cni.answer import TRY_AGAIN, AddResult, Call, WrongAnswer, code_of, read_result, read_versions, why_failed
from testbed.cni.call import call_plugin, enter_node, find_program
from testbed.cni.conflist import (
    CHECK_SINCE,
    GC_SINCE,
    Conflist,
    Plugin,
    WrongConflist,
    choose_version,
    collection,
    fill,
    is_since,
    request,
)
from testbed.cni.files import load_conflist
from testbed.processes import namespaces as ns

T = TypeVar("T")

INTERFACE = "eth0"
RESULTS = Path("/var/lib/cni/results")
"""On the node, whose /var/lib is its own."""
STATE = "/var/lib"
STATE_OPTIONS = "size=64m,mode=0755"


class CniFailed(OSError):
    """Plugins could not make, check or remove a pod's network; one line with their reason."""

    def __init__(self, why: str, *, may_pass: bool = False) -> None:
        """`may_pass`: the same call may succeed later, by what the plugin says or because it took too long."""
        super().__init__(why)
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class Attachment:
    """The parameters of a pod's network: the same for its ADD, CHECK and DEL."""

    subject: str
    """What events are about: `pod/nginx`."""
    container_id: str
    netns: str
    """A path on the node."""
    arguments: str
    """CNI_ARGS."""
    capabilities: Mapping[str, Any]
    """Arguments by capability, for the plugins that declare it."""

    def parameters(self) -> dict[str, str]:
        """Return the environment variables."""
        return {
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": self.arguments,
        }


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment that was begun, with the configuration of its ADD."""

    attachment: Attachment
    conflist: Conflist
    version: str
    result: Mapping[str, Any] | None = None
    """None if the ADD failed."""


@dataclass(frozen=True, slots=True)
class KnownVersions:
    """The versions that a program said to support, while it is the same file."""

    file: tuple[int, int, int]
    versions: tuple[str, ...]


@dataclass(slots=True)
class _Traffic:
    """GC runs alone; ADD and DEL of different pods run side by side."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        with self.changed:
            self.running += 1
        try:
            yield
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.running)
            yield


class Runtime:
    """Calls a node's plugins. Methods may be called from several threads, for one pod from one at a time."""

    def __init__(
        self,
        pid: int,
        conflist: str,
        directories: Sequence[str],
        limit_s: float,
        values: Callable[[], Mapping[str, str | int]],
        on_call: Callable[[str, Call, str], None],
    ) -> None:
        """`pid` is a process with the node's namespaces, `values` those of placeholders.

        `on_call` gets the subject, every call, and why it failed (empty if it did not).
        """
        self._pid = pid
        self._file = conflist
        self._directories = tuple(directories)
        self._limit_s = limit_s
        self._values = values
        self._on_call = on_call
        self._probes: dict[str, KnownVersions] = {}
        self._attached: dict[str, Attached] = {}
        """By container id."""
        self._traffic = _Traffic()
        self._stale = False
        """A DEL failed since the last GC."""
        self._available = False
        """The last ADD succeeded, so STATUS need not be called."""
        self._preparing = threading.Lock()
        self._prepared = False

    def add(self, attachment: Attachment, pause_pid: int) -> AddResult:
        """Make the pod's network. Raises CniFailed; then `delete` is still to be called, as for a success."""
        conflist, version = self._configuration(attachment.subject)
        if self._stale and conflist.collects and is_since(version, GC_SINCE):
            self._collect(conflist, version)
        if not self._available and is_since(version, GC_SINCE):
            for plugin in conflist.plugins:
                self._call(attachment.subject, "STATUS", plugin.type, {}, request(conflist, plugin, version))
        attached = Attached(attachment, conflist, version)
        self._attached[attachment.container_id] = attached
        self._available = False
        with self._traffic.one():
            self._inside(partial(_bind, pause_pid, attachment.netns))
            result = self._add_chain(attached)
        self._attached[attachment.container_id] = Attached(attachment, conflist, version, result.raw)
        self._available = True
        self._inside(partial(_store, attached, result))
        return result

    def check(self, container_id: str) -> None:
        """Let the plugins compare the pod's network with their result. Raises CniFailed."""
        attached = self._attached.get(container_id)
        if attached is None or not attached.conflist.checks or not is_since(attached.version, CHECK_SINCE):
            return
        self._chain(attached, "CHECK", attached.conflist.plugins)

    def delete(self, container_id: str) -> None:
        """Remove the pod's network; what was never added is success.

        Raises CniFailed. The name of its network namespace is removed in any case.
        """
        attached = self._attached.get(container_id)
        if attached is None:
            return
        try:
            self._delete(attached)
        except CniFailed:
            self._stale = True
            raise
        finally:
            self._attached.pop(container_id, None)

    def _inside(self, work: Callable[[], T]) -> T:
        """Do something on the node, where the lab's own files are not visible. Raises OSError."""

        def visit() -> T:
            enter_node(self._pid)
            with self._preparing:
                if not self._prepared:
                    # Plugins keep state there, and the machine's own is not to change.
                    ns.mount("tmpfs", STATE, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, STATE_OPTIONS)
                    self._prepared = True
            return work()

        return ns.in_new_thread(visit)

    def _add_chain(self, attached: Attached) -> AddResult:
        previous: AddResult | None = None
        for plugin in attached.conflist.plugins:
            call = self._execute(attached, "ADD", plugin, None if previous is None else previous.raw)
            previous = self._understood(attached.attachment.subject, call, read_result)
        if previous is None:
            raise CniFailed("CNI: no plugins")
        return previous

    def _chain(self, attached: Attached, command: str, plugins: Sequence[Plugin]) -> None:
        for plugin in plugins:
            call = self._execute(attached, command, plugin, attached.result)
            self._on_call(attached.attachment.subject, call, "")

    def _execute(self, attached: Attached, command: str, plugin: Plugin, previous: Mapping[str, Any] | None) -> Call:
        given, attachment = attached.conflist, attached.attachment
        config = request(given, plugin, attached.version, attachment.capabilities, previous)
        return self._run(attachment.subject, command, plugin.type, attachment.parameters(), config)

    def _delete(self, attached: Attached) -> None:
        try:
            with self._traffic.one():
                self._chain(attached, "DEL", attached.conflist.plugins[::-1])
        finally:
            with contextlib.suppress(OSError):
                # Gone with its node.
                self._inside(partial(_forget, attached))

    def _collect(self, conflist: Conflist, version: str) -> None:
        """Call GC on every plugin, whatever the others say; failures are reported and no more."""
        with self._traffic.alone():
            # A copy: other pods' ADDs begin meanwhile, up to their first plugin.
            valid = [(name, INTERFACE) for name in list(self._attached)]
            self._stale = False
            for plugin in conflist.plugins:
                with contextlib.suppress(CniFailed):
                    self._call("lab/cni", "GC", plugin.type, {}, collection(conflist, plugin, version, valid))

    def _configuration(self, subject: str) -> tuple[Conflist, str]:
        try:
            conflist = load_conflist(self._file)
        except WrongConflist as error:
            raise CniFailed(f"CNI: {error}") from None
        values = self._values()
        plugins = tuple(Plugin(plugin.type, fill(plugin.config, values)) for plugin in conflist.plugins)
        filled = Conflist(conflist.name, conflist.versions, plugins, conflist.checks, conflist.collects)
        supported = {plugin.type: self._versions(subject, plugin.type, conflist.versions[-1]) for plugin in plugins}
        try:
            return filled, choose_version(filled, supported)
        except WrongConflist as error:
            raise CniFailed(f"CNI: {self._file}: {error}") from None

    def _versions(self, subject: str, plugin: str, version: str) -> tuple[str, ...]:
        program = find_program(plugin, self._directories)
        known = os.stat(program) if program is not None else None
        file = (known.st_ino, known.st_mtime_ns, known.st_size) if known is not None else (0, 0, 0)
        probe = self._probes.get(plugin)
        if probe is None or probe.file != file or known is None:
            call = self._run(subject, "VERSION", plugin, {}, {"cniVersion": version})
            probe = self._probes[plugin] = KnownVersions(file, self._understood(subject, call, read_versions))
        return probe.versions

    def _understood(self, subject: str, call: Call, read: Callable[[Call], T]) -> T:
        """Return a call's answer. Raises CniFailed if it is not what the specification asks for."""
        try:
            answer = read(call)
        except WrongAnswer as failure:
            self._on_call(subject, call, str(failure))
            raise CniFailed(f"CNI {call.command} {call.plugin}: {failure}") from None
        self._on_call(subject, call, "")
        return answer

    def _call(
        self, subject: str, command: str, plugin: str, parameters: Mapping[str, str], config: Mapping[str, Any]
    ) -> None:
        self._on_call(subject, self._run(subject, command, plugin, parameters, config), "")

    def _run(
        self, subject: str, command: str, plugin: str, parameters: Mapping[str, str], config: Mapping[str, Any]
    ) -> Call:
        """Return a call that succeeded. Raises CniFailed for another, which is reported first."""
        call = self._inside(lambda: call_plugin(plugin, command, self._directories, parameters, config, self._limit_s))
        if not call.succeeded:
            why = why_failed(call)
            self._on_call(subject, call, why)
            raise CniFailed(f"CNI {command} {plugin}: {why}", may_pass=bool(call.failure) or code_of(call) == TRY_AGAIN)
        return call


def _bind(pause_pid: int, netns: str) -> None:
    """Give the pod's network namespace a path on the node, which keeps it until DEL."""
    place = Path(netns)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch(mode=0o444)
    ns.mount(f"/proc/{pause_pid}/ns/net", netns, flags=ns.MS_BIND)


def _forget(attached: Attached) -> None:
    """Remove the path and the cached result, so that nothing keeps the namespace."""
    netns = attached.attachment.netns
    with contextlib.suppress(OSError):
        ns.umount(netns, ns.MNT_DETACH)
    Path(netns).unlink(missing_ok=True)
    _cached(attached).unlink(missing_ok=True)


def _cached(attached: Attached) -> Path:
    return RESULTS / f"{attached.conflist.name}-{attached.attachment.container_id}-{INTERFACE}"


def _store(attached: Attached, result: AddResult) -> None:
    """Write the result as libcni does."""
    attachment, plugins = attached.attachment, [dict(plugin.config) for plugin in attached.conflist.plugins]
    config = {"cniVersion": attached.version, "name": attached.conflist.name, "plugins": plugins}
    text = json.dumps(
        {
            "kind": "cniCacheV1",
            "containerId": attachment.container_id,
            "config": base64.b64encode(json.dumps(config).encode()).decode(),
            "ifName": INTERFACE,
            "networkName": attached.conflist.name,
            "netns": attachment.netns,
            "cniArgs": [one.split("=", 1) for one in attachment.arguments.split(";")],
            "capabilityArgs": dict(attachment.capabilities),
            "result": dict(result.raw),
        }
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    _cached(attached).write_text(text)
