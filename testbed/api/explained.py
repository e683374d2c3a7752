"""JSON schemas of the models with the text below each field in their source, for `kubectl explain`."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

Schema = dict[str, Any]
COMMON: Mapping[str, str] = {
    "apiVersion": "The version of the kind's fields.",
    "kind": "The kind of the object.",
    "name": "The name, unique among those of its kind and place.",
    "namespace": "The namespace of the object.",
    "labels": "Labels, by which selectors find it.",
    "annotations": "Notes of users and programs.",
    "image": "Selects the recipe that runs; nothing is pulled.",
    "command": "The program and its first arguments; by default those of the image.",
    "args": "Arguments; by default those of the image.",
    "workingDir": "The directory in which the program starts.",
    "replicas": "The number of pods.",
    "nodeName": "The node that runs the pod; by default the one with the fewest pods.",
    "restartPolicy": "Which containers are started again when they end.",
    "terminationGracePeriodSeconds": "The time from SIGTERM to SIGKILL.",
    "data": "Keys and their values.",
}
"""Texts of fields that several models have, or that need none beside their definition."""


class _Explained(GenerateJsonSchema):
    """Adds each field's text; a field that may be left out has the schema of its value, as in Kubernetes."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:  # noqa: ANN401 - pydantic_core's own union of schemas
        found = super().model_schema(schema)
        texts = _texts(schema["cls"])
        fields = schema["cls"].model_fields
        properties = found.get("properties", {})
        for name, text in texts.items():
            if name in fields:
                properties[fields[name].alias or name]["description"] = text
        return found

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:  # noqa: ANN401 - as above
        return self.generate_inner(schema["schema"])


def explained_schema(model: type[BaseModel], reference: str) -> Schema:
    """Return the schema of a model; `reference` is where its parts will be found."""
    schema = model.model_json_schema(by_alias=True, ref_template=reference, schema_generator=_Explained)
    parts = {reference.format(model=name): part for name, part in schema.get("$defs", {}).items()}
    for part in (schema, *parts.values()):
        for name, field in part.get("properties", {}).items():
            inner = parts.get(field.get("$ref") or field.get("items", {}).get("$ref"), {})
            field.setdefault("description", COMMON.get(name) or inner.get("description", ""))
    return schema


@cache
def _texts(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the text of each field of a model, its bases' included."""
    models = [one for one in reversed(model.__mro__) if issubclass(one, BaseModel) and one is not BaseModel]
    return {name: text for one in models for name, text in field_texts(one).items()}


def class_definition(one: type) -> ast.ClassDef:
    """Return a class as it is written."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
    assert isinstance(definition, ast.ClassDef)
    return definition


def field_texts(one: type) -> dict[str, str]:
    """Return the text below each field that a class declares itself: Python forgets it."""
    body, found = class_definition(one).body, dict[str, str]()
    for statement, following in pairwise(body):
        if isinstance(statement, ast.AnnAssign | ast.Assign) and isinstance(following, ast.Expr):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(following.value, ast.Constant):
                found[target.id] = inspect.cleandoc(str(following.value.value))
    return found
