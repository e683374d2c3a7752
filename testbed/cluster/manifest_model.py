"""The basis of every manifest model: strict, immutable mappings, names, texts and ports."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from testbed.cluster.free_values import LAST_PORT
from testbed.cluster.name_rules import (
    check_label_key,
    check_label_name,
    check_label_value,
    check_process_text,
    within,
)

LEFT_OUT_AT_ZERO = object()
"""Marks a number for which Kubernetes treats 0 as absent."""


class Model(BaseModel):
    """A mapping of a manifest: immutable, no conversions, no unknown keys, camelCase outside and snake_case inside.

    Empty values are dropped, as by kubectl: a key without a value; empty text, an empty list and, for some numbers, 0,
    if the key has a default; and, under unknown keys, anything without a value, such as `status: {}`.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )

    empty_settings_say_nothing: ClassVar[bool] = True
    """Whether an unknown key with an empty value is allowed."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_empty(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        nothing = _nothing_by_key(cls)
        return {key: value for key, value in given.items() if not cls._is_left_out(value, nothing.get(key))}

    @classmethod
    def _is_left_out(cls, value: object, nothing: tuple[object, ...] | None) -> bool:
        if nothing is None:
            return value is None or (cls.empty_settings_say_nothing and holds_no_value(value))
        return any(value == one and type(value) is type(one) for one in nothing)


@cache
def _nothing_by_key(model: type[BaseModel]) -> Mapping[str, tuple[object, ...]]:
    """Return the empty values of each key."""
    found: dict[str, tuple[object, ...]] = {}
    for name, field in model.model_fields.items():
        zero = (0,) if LEFT_OUT_AT_ZERO in field.metadata else ()
        found[field.alias or name] = (None,) if field.is_required() else (None, "", [], *zero)
    return found


def holds_no_value(value: object) -> bool:
    """Report whether it contains only empty mappings, lists and texts."""
    if isinstance(value, dict | list):
        return all(map(holds_no_value, value.values() if isinstance(value, dict) else value))
    return value in (None, "")


def _empty_for_null(value: object) -> object:
    return "" if value is None else value


LabelName = Annotated[str, AfterValidator(check_label_name)]
LabelKey = Annotated[str, AfterValidator(check_label_key)]
LabelValue = Annotated[str, BeforeValidator(_empty_for_null), AfterValidator(check_label_value)]
Annotations = dict[str, Annotated[str, BeforeValidator(_empty_for_null)]]
ProcessText = Annotated[str, AfterValidator(check_process_text)]
Port = Annotated[int, within(1, LAST_PORT)]
