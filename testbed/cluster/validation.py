"""From plain data to models: every mistake becomes one problem with the key's path, its line and the expected value."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.cluster.kubernetes_words import INSTEAD, KUBERNETES_KEYS
from testbed.cluster.problems import Position, Problem, near_match, shorten
from testbed.cluster.yaml_source import Document, Path, dotted
from testbed.spelling import listed

ModelT = TypeVar("ModelT", bound=BaseModel)

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "is_instance_of": "text",
}
EXAMPLES = {
    "apiVersion": "v1",
    "cidr": "10.0.0.0/16",
    "command": "[cat, /tmp/ready]",
    "conflist": "/etc/cni/net.d/10-mine.conflist",
    "containerPort": "8080",
    "containers": "[{name: web, image: nginx}]",
    "ends": "[node1, s1]",
    "fieldPath": "status.podIP",
    "file": "/run/flannel/subnet.env",
    "hostnames": "[db.example]",
    "image": "nginx",
    "ip": "10.0.46.9",
    "key": "app",
    "kind": "Pod",
    "matchLabels": "{app: web}",
    "metadata": "{name: web}",
    "mountPath": "/data",
    "name": "web",
    "nodes": "[node1, node2]",
    "operator": "Exists",
    "path": "/srv/data",
    "plugins": "/usr/lib/cni",
    "port": "80",
    "ports": "[{port: 80}]",
    "resource": "limits.cpu",
    "seconds": "5",
    "secretName": "keys",
    "selector": "{app: web}",
    "sources": "[{configMap: {name: web}}]",
    "spec": "{containers: [{name: web, image: nginx}]}",
    "template": "{metadata: {labels: {app: web}}, spec: {…}}",
    "value": "text",
    **dict.fromkeys(
        ("DaemonSet.spec", "Deployment.spec", "ReplicaSet.spec"),
        "{selector: {matchLabels: {app: web}}, template: {…}}",
    ),
    "NetworkPolicy.spec": "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}",
    "Service.spec": "{selector: {app: web}, ports: [{port: 80}]}",
}
"""Key that an object must have, or KIND.KEY → an example."""
MOST_CUTS = 4
"""How often a wrong document is cut down to find more problems in it."""
_LOOK_LIKE_OTHERS = ("true", "false", "yes", "no", "on", "off", "null")
"""Texts that must be quoted in messages."""


class Source:
    """One document of a file, which can locate its values in the file."""

    def __init__(self, document: Document, name: str) -> None:
        self.document, self.name = document, name
        self.warnings: list[Problem] = []
        """Accepted differences that a person should know."""
        self._wrong: list[Path] = []

    def problem(self, path: Path, what: str, *, at_key: bool = False) -> Problem:
        """Return a problem of the value at `path`, or of its key."""
        position = self.document.key_position(path) if at_key else self.document.position(path)
        return self.problem_at(position, f"{dotted(path)}: {what}" if path else what)

    def replace_value(self, value: object) -> None:
        """Replace the value; the parts that remain keep their position in the file."""
        self.document = dataclasses.replace(self.document, value=value)

    def warn(self, path: Path, what: str, *, at_key: bool = False) -> None:
        """Accept the value at `path`, or its key, with a warning."""
        self.warnings.append(self.problem(path, what, at_key=at_key))

    def problem_at(self, position: Position, what: str) -> Problem:
        """Return a problem at `position`."""
        return Problem(f"{self.name}:{position.line}:{position.column}", what)

    def note_wrong(self, path: Path) -> None:
        """Remember that the value at `path` is wrong, and so missing from the model."""
        self._wrong.append(path)

    def is_doubtful(self, path: Path) -> bool:
        """Return whether something at or below `path` is wrong: then the model's content there is no reason to
        complain.
        """
        return any(wrong[: len(path)] == path for wrong in self._wrong)

    def names_in(self, path: Path) -> list[str] | None:
        """Return the `name` of each item of the list at `path`, as in the file; None if one of them is wrong."""
        value = self.document.value
        for step in path:
            value = value.get(step) if isinstance(value, dict) else value[step]
        items = value if isinstance(value, list) else []
        if self.is_doubtful(path) and any(self.is_doubtful((*path, at, "name")) for at in range(len(items))):
            return None
        return [item["name"] for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)]

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`."""
        return self.document.position(path).line


def read_model(source: Source, model: type[ModelT], context: object = None) -> tuple[ModelT | None, list[Problem]]:
    """Return the document as `model`, and every reason why it is not one; `context` is for the model's own validators.

    With problems, the model is without the wrong entries, and serves only to find more problems; None if that is not a
    `model` either.
    """
    try:
        return model.model_validate(source.document.value, context=context), []
    except ValidationError as failure:
        errors = [error for error in failure.errors(include_url=False) if not _is_echo(error)]
    problems = [_problem(source, model, error) for error in errors]
    for error in errors:
        source.note_wrong(error["loc"])
    rest = copy.deepcopy(source.document.value)
    for error in errors:
        _forget(rest, error)
        if error["loc"][:2] in (("metadata",), ("metadata", "name")):
            _give_name(rest, f"no-name-{source.line(())}")
    for _ in range(MOST_CUTS):
        try:
            return model.model_validate(rest, context=context), problems
        except ValidationError as failure:
            # A value that now misses an entry is removed whole: a port without its number, then a container's ports.
            for error in (one for one in failure.errors(include_url=False) if not _is_echo(one)):
                _cut(rest, error["loc"][:-1] if error["type"] == "missing" else error["loc"])
    return None, problems


def _is_echo(error: ErrorDetails) -> bool:
    """Report whether pydantic calls a list too short only because its items are wrong."""
    return error["type"] == "too_short" and bool(error["input"])


def _is_of_key(error: ErrorDetails) -> bool:
    """Report whether the key of a mapping is wrong; pydantic marks it so, and a key may be the same text."""
    return error["loc"][-1:] == ("[key]",) and error["type"] != "extra_forbidden"


def _forget(value: Any, error: ErrorDetails) -> None:  # noqa: ANN401 - plain data
    """Remove the wrong entry of a mapping, if nothing else refers to its content."""
    if error["type"] in ("missing", "tuple_type", "dict_type", "model_type") or _is_of_key(error):
        return
    for step in error["loc"][:-1]:
        value = value[step]
    if isinstance(value, dict) and error["loc"]:
        value.pop(error["loc"][-1], None)


def _give_name(rest: Any, name: str) -> None:  # noqa: ANN401 - plain data
    """Add a name where there is no usable one: without it the whole object would be removed, and hide its other
    problems.
    """
    if not isinstance(rest, dict):
        return
    if not isinstance(rest.get("metadata"), dict):
        rest["metadata"] = {}
    rest["metadata"]["name"] = name


def _cut(value: Any, path: Path) -> None:  # noqa: ANN401 - plain data
    """Remove the mapping entry at `path`; for a list, all of it, so that other positions do not change."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    for step in path[:-1]:
        try:
            value = value[step]
        except LookupError:
            # Already removed by an earlier cut.
            return
    if isinstance(value, dict) and path:
        value.pop(path[-1], None)


def _problem(source: Source, model: type[BaseModel], error: ErrorDetails) -> Problem:
    of_key = _is_of_key(error)
    path: Path = error["loc"][:-1] if of_key else error["loc"]
    kind, got = error["type"], shown(error["input"])
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = allowed_keys(model, path[:-1])
        key = str(path[-1])
        near = "" if key in KUBERNETES_KEYS else near_match(key, allowed)
        if key in KUBERNETES_KEYS:
            want = INSTEAD.get(key) or f"it left out, or one of {listed(allowed)}"
            return source.problem(path, f"not supported here (got {key}; want {want})", at_key=True)
        what = f"unknown or unsupported key (got {shorten(key)}; want {', '.join(allowed)}){near}"
        return source.problem(path, what, at_key=True)
    if kind == "missing":
        parent = path[:-1]
        key = str(path[-1])
        example = EXAMPLES.get(f"{model.__name__}.{key}") or EXAMPLES[key]
        return source.problem(parent, f"{key} is missing (got nothing; want {key}: {example})")
    if kind == "spec":
        what = f"{context['what']} (got {shown(context['got'])}; want {context['want']})"
        return source.problem(path, what, at_key=of_key)
    written = source.document.written.get(path)
    if kind == "string_type" and written not in (None, got):
        text = shorten(written)
        what = f'wrong type (got {text}, which YAML reads as {got}; want text: "{text}", in quotes)'
        return source.problem(path, what)
    return source.problem(path, _standard(kind, got, context))


def _standard(kind: str, got: str, context: Mapping[str, Any]) -> str:
    if kind in _KINDS:
        return f"wrong type (got {got}; want {_KINDS[kind]})"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("''", '""').replace("'", "")
        return f"not one of the known values (got {got}; want {expected})"
    if kind == "too_short":
        return f"too few (got {context['actual_length']}; want at least {context['min_length']})"
    return f"{kind.replace('_', ' ')} (got {got}; want a value as in docs/reference.md)"


def shown(value: object) -> str:
    """Format a value of a file for a message: text that looks like something else is called a text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str) and (not value or value.replace(".", "", 1).isdigit() or value in _LOOK_LIKE_OTHERS):
        return f'the text "{value}"'
    return shorten(value)


def allowed_keys(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the mapping at `path` below `model` may have, in the order of declaration."""
    current: type[BaseModel] = model
    for step in path:
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        if isinstance(step, str) and step in fields:
            current = model_in(fields[step].annotation) or current
    return [field.alias or name for name, field in current.model_fields.items()]


def model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type expression
    """Return the model of a field with this type, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner: Iterable[Any] = get_args(annotation)
    return next((found for part in inner if (found := model_in(part))), None)
