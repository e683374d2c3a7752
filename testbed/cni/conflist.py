"""A network configuration list, and the request for one plugin made of it (CNI SPEC.md, sections 1 and 3). Pure."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from testbed.errors import TestbedError

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those that this runtime speaks, oldest first. Before 0.3.0 there are no chains."""
CHECK_SINCE, GC_SINCE = "0.4.0", "1.1.0"
RESERVED = ("runtimeConfig", "args", "capabilities", "prevResult")
"""Keys that the runtime writes, or keeps from the plugin."""
PLACEHOLDERS = ("subnet", "ipv6_subnet", "gateway", "network", "mtu")
Request = dict[str, Any]


class WrongConflist(TestbedError):
    """The file is not a network configuration list that this runtime can execute."""


class _List(BaseModel):
    """The file. Unknown keys are allowed, as the specification says."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    cni_version: str = Field(alias="cniVersion")
    cni_versions: tuple[str, ...] = Field(default=(), alias="cniVersions")
    disable_check: bool = Field(default=False, alias="disableCheck")
    disable_gc: bool = Field(default=False, alias="disableGC")
    plugins: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of the chain, with its part of the configuration."""

    type: str
    """The program's name."""
    config: Mapping[str, Any]

    @property
    def capabilities(self) -> frozenset[str]:
        """Return the capabilities that it declares."""
        given = self.config.get("capabilities")
        return frozenset(name for name, wanted in given.items() if wanted) if isinstance(given, dict) else frozenset()


@dataclass(frozen=True, slots=True)
class Conflist:
    """A network: its plugins in the order of ADD."""

    name: str
    versions: tuple[str, ...]
    """Those that the file allows and this runtime speaks, oldest first."""
    plugins: tuple[Plugin, ...]
    checks: bool = True
    collects: bool = True

    @property
    def capabilities(self) -> frozenset[str]:
        """Return what any of its plugins declares."""
        return frozenset[str]().union(*(plugin.capabilities for plugin in self.plugins))

    @property
    def bridge(self) -> str | None:
        """Return the bridge that its first plugin makes; None if it is another kind of plugin."""
        config = self.plugins[0].config
        inner = config.get("delegate", config) if self.plugins[0].type == "flannel" else config
        if self.plugins[0].type not in ("bridge", "flannel") or not isinstance(inner, dict):
            return None
        name = inner.get("bridge", "cni0")
        return name if isinstance(name, str) else None


def read_conflist(text: str) -> Conflist:
    """Parse the file. Raises WrongConflist with one line."""
    try:
        found = _List.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        got = json.dumps(first["input"], default=str)[:60]
        raise WrongConflist(f"{where}: {first['msg'].lower()} (got {got}; want a CNI conflist)") from None
    except (ValueError, RecursionError) as error:
        raise WrongConflist(f"not JSON (got {error}; want a CNI conflist)") from None
    for number, config in enumerate(found.plugins):
        kind = config.get("type")
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise WrongConflist(f"plugins.{number}.type: not a plugin's name (got {kind}; want a program's file name)")
    given = {found.cni_version, *found.cni_versions}
    versions = tuple(version for version in VERSIONS if version in given)
    if not versions:
        raise WrongConflist(f"cniVersion: not spoken here (got {', '.join(sorted(given))}; want {', '.join(VERSIONS)})")
    plugins = tuple(Plugin(config["type"], config) for config in found.plugins)
    return Conflist(found.name, versions, plugins, not found.disable_check, not found.disable_gc)


def choose_version(conflist: Conflist, supported: Mapping[str, Collection[str]]) -> str:
    """Return the highest version that the file allows and every plugin supports. Raises WrongConflist."""
    for version in reversed(conflist.versions):
        if all(version in of_one for of_one in supported.values()):
            return version
    allowed = ", ".join(conflist.versions)
    speak = "; ".join(f"{name} speaks {', '.join(of_one) or 'none'}" for name, of_one in supported.items())
    raise WrongConflist(f"cniVersion: no version that every plugin supports (got {allowed}; {speak})")


def fill(value: Any, values: Mapping[str, str | int]) -> Any:  # noqa: ANN401 - JSON
    """Return JSON in which each text that is one placeholder, as `{subnet}`, is replaced by the node's value."""
    if isinstance(value, dict):
        return {key: fill(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [fill(one, values) for one in value]
    if isinstance(value, str) and value[:1] == "{" and value[-1:] == "}":
        return values.get(value[1:-1], value)
    return value


def request(
    conflist: Conflist,
    plugin: Plugin,
    version: str,
    arguments: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
) -> Request:
    """Return what one plugin gets on standard input; `arguments` by capability, None for GC and STATUS."""
    kept = {key: one for key, one in plugin.config.items() if key not in RESERVED and not key.startswith("cni.dev/")}
    made: Request = {**kept, "cniVersion": version, "name": conflist.name}
    if arguments is not None:
        given = {name: one for name, one in arguments.items() if name in plugin.capabilities}
        if given:
            made["runtimeConfig"] = given
    if previous is not None:
        made["prevResult"] = previous
    return made


def collection(conflist: Conflist, plugin: Plugin, version: str, attachments: Sequence[tuple[str, str]]) -> Request:
    """Return the request of GC: (container id, interface) of every attachment that is still valid."""
    valid = [{"containerID": container, "ifname": interface} for container, interface in attachments]
    return {**request(conflist, plugin, version), "cni.dev/valid-attachments": valid}


def is_since(version: str, first: str) -> bool:
    """Return whether a version of the specification is that one or a later one."""
    return VERSIONS.index(version) >= VERSIONS.index(first)
