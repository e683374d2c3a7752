"""Variables of a container: their values and sources."""

from typing import Annotated, Literal

from pydantic import AfterValidator, PlainValidator, model_validator

from testbed.cluster.manifest_model import LabelName, Model, ProcessText
from testbed.cluster.name_rules import (
    check_config_key,
    check_environment_name,
    check_field_path,
    check_object_name,
    check_process_text,
    wrong,
)
from testbed.cluster.quantity import FACTORS

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


DIVISORS = {"cpu": ("1", "1m"), "memory": ("1", *(f"1{unit}" for unit in FACTORS if unit != "m"))}
"""Units that Kubernetes accepts."""


def check_divisor(given: object) -> str:
    """Check a unit of resources; 0 is the default, as in Kubernetes."""
    text = "1" if str(given) == "0" else str(given)
    if isinstance(given, bool) or text not in {*DIVISORS["cpu"], *DIVISORS["memory"]}:
        raise wrong("not a unit of resources", given, "1, 1m for CPU, or one such as 1Mi for memory")
    return text


class ContainerResource(Model):
    """One limit or request of a container, as a whole number; without a limit, all that the node has."""

    resource: Literal["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
    """Which one; a missing request is the limit, or 0."""
    container_name: LabelName | None = None
    """By default, for a variable, its own container."""
    divisor: Annotated[str, PlainValidator(check_divisor)] = "1"
    """The unit, such as 1m or 1Mi; parts of it are rounded up."""

    @model_validator(mode="after")
    def _a_unit_of_its_kind(self) -> "ContainerResource":
        known = DIVISORS[self.resource.partition(".")[2]]
        if self.divisor not in known:
            raise wrong("not a unit of this resource", self.divisor, ", ".join(known))
        return self


class ValueSource(Model):
    """The source of a variable's value: exactly one of these."""

    field_ref: FieldRef | None = None
    resource_field_ref: ContainerResource | None = None
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
        """Return the key that provides its value, with its object's kind; None for the pod's own fields."""
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
