"""Kubernetes' label selector, complete: required labels, and expressions about labels."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from testbed.cluster.columns import selector_text
from testbed.cluster.manifest_model import LabelKey, LabelValue, Model
from testbed.cluster.name_rules import wrong

Labels = Mapping[str, str]


class LabelExpression(Model):
    """A condition on one label's value."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[LabelValue, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _values_belong_to_in(self) -> "LabelExpression":
        takes_values = self.operator in ("In", "NotIn")
        if takes_values and not self.values:
            raise wrong(
                "no values to compare with", f"{self.operator} without values", f"values: [a, b] for {self.key}"
            )
        if not takes_values and self.values:
            raise wrong("values without an effect", self.operator, "In or NotIn, or no values")
        return self

    def matches(self, labels: Labels) -> bool:
        """Report whether labels match; a missing label is not in any list."""
        if self.operator in ("Exists", "DoesNotExist"):
            return (self.key in labels) == (self.operator == "Exists")
        return (labels.get(self.key) in self.values) == (self.operator == "In")


class Selector(Model):
    """All conditions together; an empty selector matches everything."""

    match_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(strict=False)] = ()

    def matches(self, labels: Labels) -> bool:
        """Report whether it selects an object with these labels."""
        return self.match_labels.items() <= labels.items() and all(
            one.matches(labels) for one in self.match_expressions
        )

    def __str__(self) -> str:
        """Return it as kubectl shows and takes it; `<none>` for an empty one."""
        return selector_text(self.model_dump(mode="json", by_alias=True))
