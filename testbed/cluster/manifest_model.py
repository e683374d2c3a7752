"""What every model of a manifest is made of: strict, immutable mappings, names, texts and ports."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from testbed.cluster.name_rules import (
    LAST_PORT,
    check_label_key,
    check_label_name,
    check_label_value,
    check_process_text,
    within,
)


class Model(BaseModel):
    """A mapping of a manifest: immutable, no conversions, no unknown keys, camelCase outside and snake_case inside."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


LabelName = Annotated[str, AfterValidator(check_label_name)]
LabelKey = Annotated[str, AfterValidator(check_label_key)]
LabelValue = Annotated[str, AfterValidator(check_label_value)]
ProcessText = Annotated[str, AfterValidator(check_process_text)]
Port = Annotated[int, within(1, LAST_PORT)]
