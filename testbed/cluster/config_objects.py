"""v1 ConfigMap and v1 Secret: named texts for variables and files of pods."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from testbed.cluster.free_values import free_name
from testbed.cluster.manifest import Metadata, NamespacedObject
from testbed.cluster.name_rules import check_config_key, check_object_name, wrong
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

MOST_BYTES = 1 << 20
"""Limit for all values together, as in Kubernetes."""
KEYS_OF_TYPE = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Type of a Secret → its required keys."""


def _text(value: object) -> object:
    """Keep a value out of its error message: it may be secret."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong("wrong type", "something else than text", "text, in quotes")
    return value


def _check_base64(instead: str) -> AfterValidator:
    """Accept only base64; `instead` is the field for plain text."""

    def check(value: str) -> str:
        try:
            _decoded(value)
        except binascii.Error:
            want = f"base64; plain text goes under {instead}"
            raise wrong("not base64", f"{len(value)} characters", want) from None
        return value

    return AfterValidator(check)


def _decoded(value: str) -> bytes:
    # As in Kubernetes: line ends are not part of it.
    return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)


ConfigKey = Annotated[str, AfterValidator(check_config_key)]
Text = Annotated[str, BeforeValidator(_text)]


class ConfigMetadata(Metadata):
    """Name and labels; the name may contain dots."""

    name: Annotated[str, AfterValidator(check_object_name)]


class ConfigMap(NamespacedObject):
    """A v1 ConfigMap."""

    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: ConfigMetadata
    data: dict[ConfigKey, Text] = Field(default_factory=dict)
    binary_data: dict[ConfigKey, Annotated[Text, _check_base64("data")]] = Field(default_factory=dict)
    """In base64; for files of volumes, never for variables."""
    immutable: bool = False
    """True: it can only be deleted, not changed."""

    @property
    def variables(self) -> Mapping[str, bytes]:
        """Return what can be a variable's value."""
        return {key: value.encode() for key, value in self.data.items()}

    @property
    def content(self) -> Mapping[str, bytes]:
        """Return all values."""
        return {**self.variables, **{key: _decoded(value) for key, value in self.binary_data.items()}}


class Secret(NamespacedObject):
    """A v1 Secret."""

    api_version: Literal["v1"]
    kind: Literal["Secret"]
    metadata: ConfigMetadata
    data: dict[ConfigKey, Annotated[Text, _check_base64("stringData")]] = Field(default_factory=dict, repr=False)
    """In base64."""
    string_data: dict[ConfigKey, Text] = Field(default_factory=dict, repr=False)
    """As plain text; overrides `data`, in which it is shown."""
    type: str = "Opaque"
    """Some types have keys that must be there."""
    immutable: bool = False
    """True: it can only be deleted, not changed."""

    @property
    def content(self) -> Mapping[str, bytes]:
        """Return all values."""
        plain = {key: value.encode() for key, value in self.string_data.items()}
        return {**{key: _decoded(value) for key, value in self.data.items()}, **plain}

    @property
    def variables(self) -> Mapping[str, bytes]:
        """Return the values that can be variables."""
        return self.content

    def to_manifest(self) -> dict[str, Any]:
        """Return the object as the API server shows it: everything under `data`."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"string_data"})
        data = {key: base64.b64encode(value).decode() for key, value in self.content.items()}
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest, "data": data, "type": self.type}


ConfigObject = ConfigMap | Secret


def check_config_map(source: Source, read: object) -> Iterator[Problem]:
    """Check the parts of one ConfigMap against each other."""
    assert isinstance(read, ConfigMap)
    for key in read.binary_data:
        if key in read.data:
            want = f"want another, such as {free_name(key, {*read.data, *read.binary_data})}"
            yield source.problem(("binaryData", key), f"a key twice (got {key}, data has it too; {want})")
    yield from _check_size(source, read)


def check_secret(source: Source, read: object) -> Iterator[Problem]:
    """Check the parts of one Secret against each other."""
    assert isinstance(read, Secret)
    missing = [key for key in KEYS_OF_TYPE.get(read.type, ()) if key not in read.content]
    if missing and not (source.is_doubtful(("data",)) or source.is_doubtful(("stringData",))):
        what = f"keys of this type are missing (got {read.type} without {', '.join(missing)}; want them under data)"
        yield source.problem(("type",), what)
    yield from _check_size(source, read)


def _check_size(source: Source, read: ConfigObject) -> Iterator[Problem]:
    size = sum(map(len, read.content.values()))
    if size > MOST_BYTES:
        yield source.problem(("data",), f"too much data (got {size} bytes; want at most {MOST_BYTES})")
