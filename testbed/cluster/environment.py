"""Variables of a container: their values and sources."""

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from testbed.cluster.manifest_model import Model, ProcessText
from testbed.cluster.name_rules import (
    check_config_key,
    check_environment_name,
    check_field_path,
    check_object_name,
    check_process_text,
    wrong,
)

ConfigKind = Literal["ConfigMap", "Secret"]


class FieldRef(Model):
    """A field of the pod itself, by its path."""

    field_path: Annotated[str, AfterValidator(check_field_path)]
    api_version: Literal["v1"] = "v1"


class KeyRef(Model):
    """One key of a ConfigMap or Secret of the pod's namespace."""

    name: Annotated[str, AfterValidator(check_object_name)]
    key: Annotated[str, AfterValidator(check_config_key)]
    optional: bool = False
    """True: if the key or the object is missing, the variable is omitted."""


class ValueSource(Model):
    """The source of a variable's value: exactly one of these."""

    field_ref: FieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None

    @model_validator(mode="after")
    def _a_source(self) -> "ValueSource":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            got = "nothing" if not given else f"{len(given)} of them"
            want = "fieldRef: {fieldPath: status.podIP}, configMapKeyRef or secretKeyRef: {name: …, key: …}"
            raise wrong("a value has one source", got, want)
        return self

    @property
    def key(self) -> tuple[ConfigKind, KeyRef] | None:
        """Return the key that provides its value, with its object's kind; None for a field of the pod."""
        if self.config_map_key_ref is not None:
            return "ConfigMap", self.config_map_key_ref
        return None if self.secret_key_ref is None else ("Secret", self.secret_key_ref)


class EnvironmentVariable(Model):
    """One variable of a container; `$(OTHER)` in its value is replaced as in Kubernetes."""

    name: Annotated[str, AfterValidator(check_environment_name)]
    value: ProcessText = ""
    value_from: ValueSource | None = None

    @model_validator(mode="after")
    def _one_value(self) -> "EnvironmentVariable":
        if self.value and self.value_from is not None:
            raise wrong("a variable has one value", "value and valueFrom", "one of them")
        return self


class ObjectRef(Model):
    """A ConfigMap or Secret of the pod's namespace."""

    name: Annotated[str, AfterValidator(check_object_name)]
    optional: bool = False
    """True: do not wait for it."""


def check_prefix(prefix: str) -> str:
    """Check a prefix of variable names."""
    if "=" in prefix or not prefix.isprintable():
        raise wrong("not a prefix of a variable's name", prefix, "letters, digits and _")
    return check_process_text(prefix)


class EnvironmentSource(Model):
    """An object whose keys all become variables: one of the two."""

    prefix: Annotated[str, AfterValidator(check_prefix)] = ""
    """Prefix of each name."""
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None

    @model_validator(mode="after")
    def _a_source(self) -> "EnvironmentSource":
        if (self.config_map_ref is None) == (self.secret_ref is None):
            got = "none" if self.secret_ref is None else "both"
            raise wrong("variables come from one object", got, "configMapRef or secretRef: {name: …}")
        return self

    @property
    def object(self) -> tuple[ConfigKind, ObjectRef]:
        """Return the object and its kind."""
        if self.config_map_ref is not None:
            return "ConfigMap", self.config_map_ref
        assert self.secret_ref is not None
        return "Secret", self.secret_ref
