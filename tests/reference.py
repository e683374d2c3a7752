"""docs/reference.md, written from the code: every verb with its options, the agent's flags, fields of a cluster file.

    scripts/reference --write      python -m tests.reference --write

Text comes from where it is anyhow: help of the command lines, docstrings of the models.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from agent.options.options import COMMANDS, FLAGS
from testbed.cluster.cluster_document import ClusterDocument
from testbed.cluster.images import RECIPES
from testbed.cluster.kinds import MANIFESTS
from testbed.cluster.manifest_model import Model
from testbed.command.command_line import SECTIONS, verbs

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Reference

Written by `scripts/reference --write` from the code; a test holds that it is up to date. Exit codes, files and JSON:
[README](../README.md) and [architecture.md](architecture.md).
"""
WORDS = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "IPv4Address": "address",
    "IPv4Network": "network",
    "IPv6Network": "network",
    "NoneType": "nothing",
    "Any": "anything",
}


def page() -> str:
    """The whole page."""
    importlib.import_module("testbed.command.cli")  # registers the verbs
    parts = [HEAD]
    for section, names in SECTIONS.items():
        parts.append(f"\n## Verbs: {section[0].lower()}{section[1:]}\n")
        for name in names:
            parts += _verb(f"testbed {name}", verbs.commands[name])
    parts += _agent_flags()
    parts.append("\n## Fields of a cluster file\n")
    documents: list[type[Model]] = [ClusterDocument]
    documents += [kind.manifest()[0] for kind in MANIFESTS.values() if kind.manifest]
    for document in documents:
        parts += _document(document)
    parts.append("\n## Images\n\n| image | what runs |\n|---|---|\n")
    parts += [f"| `{name}` | {_cell(text)} |\n" for name, text in RECIPES.items()]
    return "".join(parts)


def _verb(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n### {path}\n\n`{path} {usage}`\n\n{_help(command)}\n"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "\n| option | meaning |\n|---|---|\n"
    for option in options:
        names, text = option.get_help_record(context) or ("", "")
        yield f"| `{_cell(names)}` | {_cell(text)} |\n"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _verb(f"{path} {name}", inner)


def _agent_flags() -> Iterator[str]:
    yield (
        "\n## Flags of the agent\n\nFor `overlay-agent`, `testbed join` and `agent.args` in a cluster file; commands:"
        f" {', '.join(f'`{name}`' for name in COMMANDS)}.\n"
        "\n| flag | variable | default | meaning |\n|---|---|---|---|\n"
    )
    for flag in FLAGS:
        spelling = f"--{flag.name}={flag.value}" if flag.value else f"--{flag.name}"
        variable, default = (f"`{text}`" if text else "-" for text in (flag.variable, flag.default))
        yield f"| `{_cell(spelling)}` | {variable} | {default} | {_cell(flag.help)} |\n"


def _help(command: click.Command) -> str:
    """Paragraphs as they are; what click must not wrap (behind `\\b`) stays in its lines."""
    paragraphs = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.startswith("\b")
        text = paragraph.removeprefix("\b\n")
        paragraphs.append(f"```text\n{text}\n```" if kept else text)
    return "\n\n".join(paragraphs)


def _document(document: type[Model]) -> Iterator[str]:
    kind = get_args(document.model_fields["kind"].annotation)[0]
    yield f"\n### {kind}\n\n| field | value | default | meaning |\n|---|---|---|---|\n"
    yield from _fields(document, "")


def _fields(model: type[Model], prefix: str) -> Iterator[str]:
    said = _docstrings(model)
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner, suffix = _inner(field.annotation)
        meaning = said.get(name) or (inspect.getdoc(inner) or "" if inner is not None else "")
        cells = (f"`{path}{suffix}`", _words(field.annotation), _default(field), meaning)
        yield f"| {' | '.join(map(_cell, cells))} |\n"
        if inner is not None:
            yield from _fields(inner, f"{path}{suffix}.")


def _inner(kind: object) -> tuple[type[Model] | None, str]:
    """The model in a field's type, and how many of it there are: `[]`, `.NAME` or one."""
    if isinstance(kind, type) and issubclass(kind, Model):
        return kind, ""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _inner(arguments[0])
    for argument in arguments[1:] if origin is dict else arguments:
        model, suffix = _inner(argument)
        if model is not None:
            own = "[]" if origin is tuple else ".NAME" if origin is dict else ""
            return model, own + suffix
    return None, ""


def _words(kind: object) -> str:
    """A type as people write it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{argument}`" if argument != "" else '`""`' for argument in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in arguments if one is not type(None)))
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {_words(arguments[1])}"
    name = getattr(kind, "__name__", str(kind))
    return "mapping" if isinstance(kind, type) and issubclass(kind, Model) else WORDS.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and _inner(field.annotation)[0] is not None:
        return "-"  # its own fields say theirs
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, Model) or value in ((), {}):
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _docstrings(model: type[Model]) -> dict[str, str]:
    """The text below each field: Python itself forgets it."""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    said = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            target, value = statement.target, following.value
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                said[target.id] = inspect.cleandoc(str(value.value))
    return said


def _cell(text: Any) -> str:  # noqa: ANN401 - whatever a default is
    return " ".join(str(text).split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page, or say whether it is up to date."""
    if arguments == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if arguments:
        print(
            f"error: scripts/reference: unknown argument (got {arguments[0]}; want nothing or --write)", file=sys.stderr
        )
        return 2
    if PAGE.read_text(encoding="utf-8") == page():
        print("docs/reference.md is up to date")
        return 0
    print("error: docs/reference.md is not what the code says (want: scripts/reference --write)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
