"""docs/reference.md, written from the code: every verb with its options, the agent's flags, fields of a cluster file.

    scripts/reference --write      python -m tests.reference --write

Text comes from where it is anyhow: help of the command lines, docstrings of the models.
"""

import ast
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import click
from pydantic.fields import FieldInfo

from agent.datapath.counters import DropReason
from agent.node.health import METRICS
from agent.options.options import COMMANDS, FLAGS
from testbed.api.explained import class_definition, field_texts
from testbed.cluster.cluster_document import ClusterDocument
from testbed.cluster.images import RECIPES
from testbed.cluster.kinds import KINDS, MANIFESTS
from testbed.cluster.manifest_model import Model
from testbed.command.command_line import SECTIONS, verbs
from testbed.control.answers.bench import BenchAnswer, BenchScaleAnswer
from testbed.control.answers.faults import CheckAnswer, FaultAnswer, HealAnswer, HintAnswer
from testbed.control.answers.graph import GraphAnswer
from testbed.control.answers.lab import (
    ApplyAnswer,
    DeleteAnswer,
    IperfAnswer,
    KernelChange,
    NodeAnswer,
    NodeStatus,
    PingAnswer,
    PodLine,
    ScaleAnswer,
    StatusAnswer,
)
from testbed.control.answers.objects import (
    DeploymentFacts,
    LeaseObject,
    NameObject,
    NodeOwnFacts,
    PodOwnFacts,
    RouteTableObject,
    ServiceOwnFacts,
)
from testbed.control.answers.offline import DoctorCheck, MachinesAnswer, TopologiesAnswer, ValidateAnswer
from testbed.control.answers.policy import PolicyAnswer
from testbed.control.answers.trace import TraceAnswer
from testbed.control.wire import PROTOCOL

ANSWERS: Mapping[str, Any] = {
    "status": StatusAnswer,
    "ping": PingAnswer,
    "iperf": IperfAnswer,
    "apply": ApplyAnswer,
    "delete": DeleteAnswer,
    "scale": ScaleAnswer,
    "node add|drain|uncordon|delete": NodeAnswer,
    "trace": TraceAnswer,
    "policy": PolicyAnswer,
    "graph": GraphAnswer,
    "commands": KernelChange,
    "fault": FaultAnswer,
    "fault heal": HealAnswer,
    "check": CheckAnswer,
    "hint": HintAnswer,
    "bench": BenchAnswer,
    "bench scale": BenchScaleAnswer,
    "machines": MachinesAnswer,
    "doctor": DoctorCheck,
    "topologies": TopologiesAnswer,
    "validate": ValidateAnswer,
}
"""Verb → what it prints with `-o json`."""
MODELS = tuple(kind.name for kind in KINDS if kind.api_version != "testbed/v1")
OWN_FACTS: Mapping[str, Any] = {
    "Node": NodeOwnFacts,
    "Pod": PodOwnFacts,
    "Deployment": DeploymentFacts,
    "Service": ServiceOwnFacts,
    "Lease": LeaseObject,
    "RouteTable": RouteTableObject,
    "Name": NameObject,
}
"""Kind → what `get` says of it beside Kubernetes' fields; of kinds of ours, everything."""
SHOWN_ELSEWHERE = {NodeStatus.__name__, PodLine.__name__}
"""Of what is derived from these, only its own fields are shown."""
PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Reference

Written by `scripts/reference --write` from the code; a test holds that it is up to date.
[Exit codes](guide/labs.md#exit-codes) and [files](guide/labs.md#files) have a page of their own.

In brackets stand the options that many verbs have:
- `--lab LAB`: which lab, when several run (or `TESTBED_LAB`).
- `-o json`: the answer as [JSON](#json-of-the-verbs).
- `-n, --namespace NAMESPACE`: in which namespace, instead of `default`. `NAMESPACE/NAME` names a pod of another.
- `-l, --selector LABELS`: only objects with these labels, joined by commas: `KEY=VALUE`, `KEY!=VALUE`, `KEY`, `!KEY`,
  `KEY in (A, B)`.
- `-6, --ipv6`: by IPv6 addresses, on a dual-stack network.
"""
Option = tuple[str, str]
"""click's spelling of an option, and its help."""
SHARED = {
    "--lab LAB": ("`--lab`", "Which lab, when several run"),
    "-o, --output [json]": ("`-o json`", "Output format"),
    "-n, --namespace NAMESPACE": ("`-n`", "In which namespace"),
    "-l, --selector LABELS": ("`-l`", "Only objects with these labels"),
    "-6, --ipv6": ("`-6`", "By IPv6 addresses"),
}
"""Options that many verbs have: click's spelling → that behind the usage line, and how their help begins."""
FIELDS = """
## Fields of a cluster file

Every object has `apiVersion` and `kind` as its first row says, and `metadata` with the fields of the cluster's.
A mapping with up to three fields that need no words stands in the row above it, with these in brackets. "below": the
mapping has a row of its own; "as": it has the fields of that row.

| part | fields |
|---|---|
"""
SMALL = 3
"""Fields of a mapping that needs no row of its own, if they need no words."""
OF_EVERY_OBJECT = ("api_version", "kind")
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
    """Return the whole page."""
    importlib.import_module("testbed.command.cli")  # registers the verbs
    repeated = _repeated()
    parts = [HEAD, *_option_lines(repeated)]
    for section, names in SECTIONS.items():
        parts.append(f"\n## Verbs: {section[0].lower()}{section[1:]}\n\n")
        for name in names:
            parts += _verb(f"testbed {name}", verbs.commands[name], repeated)
    parts += _agent_flags()
    parts.append(FIELDS)
    parts += _documents([kind.manifest()[0] for kind in MANIFESTS.values() if kind.manifest])
    parts += _answers()
    parts += _agent_pages()
    parts.append("\n## Images\n\n| image | what runs |\n|---|---|\n")
    parts += [f"| `{name}` | {_cell(text)} |\n" for name, text in RECIPES.items()]
    return "".join(parts)


def _verb(path: str, command: click.Command, repeated: Sequence[Option]) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    options = _options(path, command)
    known = {names for names, text in options if names in SHARED and text.startswith(SHARED[names][1])}
    shared = [short for names, (short, _) in SHARED.items() if names in known]
    shared += [f"`{names.split()[0].rstrip(',')}`" for names, text in repeated if (names, text) in options]
    own = [(names, text) for names, text in options if names not in known and (names, text) not in repeated]
    also = f" ({', '.join(shared)})" if shared else ""
    yield f"### {path}\n`{path} {usage}`{also}: {_help(command)}\n"
    yield from _option_lines(own)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _verb(f"{path} {name}", inner, repeated)


def _options(path: str, command: click.Command) -> list[Option]:
    context = click.Context(command, info_name=path)
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    records = [option.get_help_record(context) or ("", "") for option in options]
    return [(" ".join(names.split()), " ".join(text.split())) for names, text in records]


def _repeated() -> list[Option]:
    """Return the options that several verbs have with the same words, beside those of SHARED."""
    count = Counter(option for path, command in _commands("testbed", verbs) for option in _options(path, command))
    found = [option for option, verbs_with_it in count.items() if verbs_with_it > 1 and option[0] not in SHARED]
    spellings = Counter(names for names, _ in found)
    return [(names, text) for names, text in found if spellings[names] == 1]


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(f"{path} {name}", inner)


def _option_lines(options: Iterable[Option]) -> Iterator[str]:
    yield from (f"- `{names}`: {text}\n" for names, text in options)


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
    """Paragraphs as they are; of what click must not wrap (behind `\\b`) each line is an item."""
    paragraphs: list[str] = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            paragraphs[-1] += "".join(f"\n{_example(line)}" for line in paragraph.splitlines()[1:])
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _example(line: str) -> str:
    """Return `COMMAND   MEANING` as an item of a list; `SHELL:   COMMAND` too."""
    first, *rest = re.split(r"\s{2,}", line.strip(), maxsplit=1)
    if first.endswith(":"):
        return f"- {first} `{rest[0]}`"
    return f"- `{first}`{': ' * bool(rest)}{''.join(rest)}"


def _answers() -> Iterator[str]:
    """Yield a table of the answers that are printed with `-o json`, a row for each mapping in them."""
    yield (
        "\n## JSON of the verbs\n\nWhat `-o json` prints, and what the control socket answers (protocol "
        f"{PROTOCOL}). A field once published keeps its meaning;\nnew ones may come. "
        '"or missing": left out where it has no meaning.\n\n| verb, part | fields |\n|---|---|\n'
    )
    first_at: dict[Any, str] = {}
    first_at |= {
        _same_answer(answer): f"`{verb}`" for verb, answer in ANSWERS.items() if get_origin(answer) is not list
    }
    for verb, answer in ANSWERS.items():
        kind, is_list = (get_args(answer)[0], True) if get_origin(answer) is list else (answer, False)
        said = _said(kind).removeprefix(f"`{verb} -o json`").lstrip(".,; ")
        about = f"{'A list of these. ' if is_list else ''}{said[:1].upper()}{said[1:]}"
        yield from _answer_rows(kind, f"`{verb}`", about, first_at)
    yield (
        f"\n`get KIND` prints a v1 List, `get KIND NAME` the object. {', '.join(MODELS[:-1])} and {MODELS[-1]} have\n"
        "Kubernetes' own shapes, so that its typed clients read them; `events -o json` prints the same Events. What\n"
        "Kubernetes has no field for stands in `testbed`, at the top of the object:\n\n"
        "| kind, part | fields |\n|---|---|\n"
    )
    for name, answer in OWN_FACTS.items():
        where = f"`{name}` `testbed`" if name in MODELS else f"`{name}`"
        yield from _answer_rows(answer, where, "", first_at)


def _answer_rows(answer: Any, where: str, about: str, first_at: dict[Any, str]) -> Iterator[str]:  # noqa: ANN401 - a TypedDict
    """Yield a row for a mapping, and one for each mapping in it that was not shown before."""
    said, hints = _docstrings(answer), get_type_hints(answer)
    lines, below = [about] if about else [], []
    for name in _own_fields(answer):
        inner, suffix = _typed_dict_in(hints[name])
        meaning = said.get(name) or (_said(inner) if inner is not None else "")
        missing = " or missing" if name in answer.__optional_keys__ else ""
        shape = None if inner is None else _same_answer(inner)
        if inner is None:
            words = _words(hints[name], null=True) + missing
        elif _is_small_answer(inner):
            words = "; ".join(f"`{one}`: {_words(hint, null=True)}" for one, hint in get_type_hints(inner).items())
            words += f"{'; or null' * (type(None) in get_args(hints[name]))}{missing}"
        elif shape in first_at:
            words = f"{'list of ' * ('[]' in suffix)}mappings as {first_at[shape]}{missing}"
        else:
            first_at[shape] = f"{where} `{name}{suffix}`"
            words = f"below{' or null' * (type(None) in get_args(hints[name]))}{missing}"
            below.append((inner, first_at[shape]))
        lines.append(f"`{name}{suffix}` ({words}){': ' * bool(meaning)}{meaning}")
    yield f"| {where} | {'<br>'.join(map(_cell, lines))} |\n"
    for inner, place in below:
        yield from _answer_rows(inner, place, "", first_at)


def _is_small_answer(answer: Any) -> bool:  # noqa: ANN401 - a TypedDict
    """Return whether a mapping fits into the row above, as `_is_small` says; none of its fields may be missing."""
    hints = get_type_hints(answer).values()
    plain = all(_typed_dict_in(hint)[0] is None for hint in hints) and not answer.__optional_keys__
    return plain and len(hints) <= SMALL and not _docstrings(answer)


def _same_answer(answer: Any) -> Any:  # noqa: ANN401 - a TypedDict, and a key
    """Return a key that mappings share whose fields are the same to a reader; one that holds others has its own."""
    hints, said = get_type_hints(answer), _docstrings(answer)
    if any(_typed_dict_in(hint)[0] is not None for hint in hints.values()):
        return answer
    missing = answer.__optional_keys__
    return tuple(
        (name, _words(hints[name], null=True), name in missing, said.get(name)) for name in _own_fields(answer)
    )


def _agent_pages() -> Iterator[str]:
    """Yield what the agent counts: metrics, and the reasons of drops."""
    said = _docstrings(DropReason)
    metrics = [f"`{name}`: {text}" for name, (_, text) in METRICS.items()]
    reasons = [f"`{reason}`: {said[reason.name]}" for reason in DropReason]
    reasons.append(
        "`device_tx`, `device_rx`: Instead of these, what a device of the kernel's dropped by its own count."
    )
    yield (
        "\n## Metrics and drop reasons of the agent\n\n| where | what it says |\n|---|---|\n"
        f"| `/metrics` | {'<br>'.join(map(_cell, metrics))} |\n"
        "| `overlay_drops_total`, `/state`, `describe node`, in the order of the checks"
        f" | {'<br>'.join(map(_cell, reasons))} |\n"
    )


def _own_fields(answer: type) -> list[str]:
    """Return the fields that a class declares itself, and those of a base that is shown nowhere else."""
    body = class_definition(answer)
    own = [one.target.id for one in body.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    return own if {base.__name__ for base in _bases(answer)} & SHOWN_ELSEWHERE else list(get_type_hints(answer))


def _bases(model: type) -> list[type]:
    """Return the classes that it is derived from, as it is written: a TypedDict forgets them."""
    names = [base.id for base in class_definition(model).bases if isinstance(base, ast.Name)]
    return [vars(sys.modules[model.__module__])[name] for name in names if name != "TypedDict"]


def _typed_dict_in(kind: object) -> tuple[Any, str]:
    """Return the TypedDict in a field's type, and how many of it there are: `[]`, `.NAME` or one."""
    if is_typeddict(kind):
        return kind, ""
    for argument in get_args(kind):
        found, suffix = _typed_dict_in(argument)
        if found is not None:
            origin = get_origin(kind)
            own = "[]" if origin in (list, Sequence) else ".NAME" if origin in (dict, Mapping) else ""
            return found, own + suffix
    return None, ""


def _said(answer: Any) -> str:  # noqa: ANN401 - a TypedDict
    return " ".join((inspect.getdoc(answer) or "").split())


def _documents(manifests: Sequence[type[Model]]) -> Iterator[str]:
    """Yield the rows of each kind of document, one for each mapping in it."""
    first_at: dict[Any, str] = {}
    documents: list[type[Model]] = [ClusterDocument, *manifests]
    for document in documents:
        fields = document.model_fields
        kind, version = (get_args(fields[name].annotation)[0] for name in ("kind", "api_version"))
        spec = _inner(fields["spec"].annotation)[0] if "spec" in fields else None
        if spec is None:
            yield from _rows(document, kind, "", first_at, f"**{kind}**, `{version}`")
        else:
            first_at[_same_fields(spec)] = f"`spec` of {kind}"
            about = [_docstrings(document).get("spec") or inspect.getdoc(spec) or ""]
            yield from _rows(spec, kind, "spec", first_at, f"**{kind}**, `{version}`: `spec`", about)


def _rows(
    model: type[Model], kind: str, place: str, first_at: dict[Any, str], where: str = "", about: Sequence[str] = ()
) -> Iterator[str]:
    """Yield a row for a mapping, and one for each mapping in it that was not shown before."""
    lines, below = list(about), []
    for name, field in model.model_fields.items():
        if name in OF_EVERY_OBJECT and not place:
            continue
        inner, suffix = _inner(field.annotation)
        path = f"{field.alias or name}{suffix}"
        meaning = _docstrings(model).get(name) or (inspect.getdoc(inner) or "" if inner is not None else "")
        notes = _notes(field) if inner is None else ["required"] if field.is_required() else []
        if inner is not None:
            whole = f"{place}.{path}".lstrip(".")
            shown = _same_fields(inner)
            if _is_small(inner):
                notes.append("; ".join(_small_fields(inner)))
            elif shown in first_at:
                notes.append(f"as {first_at[shown]}")
            else:
                first_at[shown] = f"`{whole}` of {kind}"
                notes.append("below")
                below.append((inner, whole))
        lines.append(f"`{path}` ({', '.join(notes)}){': ' * bool(meaning)}{meaning}")
    yield f"| {where or f'{kind} `{place}`'} | {'<br>'.join(map(_cell, lines))} |\n"
    for inner, whole in below:
        yield from _rows(inner, kind, whole, first_at)


def _notes(field: FieldInfo) -> list[str]:
    """Return the type of a field that is no mapping, and its default."""
    default = _default(field)
    said = [] if default == "-" else ["required"] if default == "required" else [f"default {default}"]
    return [_words(field.annotation), *said]


def _is_small(model: type[Model]) -> bool:
    """Return whether a mapping fits into the row above: one or two fields without words, none of them a mapping."""
    fields = model.model_fields.values()
    return len(fields) <= SMALL and not _docstrings(model) and all(_inner(one.annotation)[0] is None for one in fields)


def _small_fields(model: type[Model]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"`{field.alias or name}`: {', '.join(_notes(field))}"


def _same_fields(model: type[Model]) -> Any:  # noqa: ANN401 - a key
    """Return a key that models share whose fields are the same to a reader; one that holds others has its own."""
    fields = model.model_fields.items()
    if any(_inner(field.annotation)[0] is not None for _, field in fields):
        return model
    said = _docstrings(model)
    return tuple((name, _words(field.annotation), _default(field), said.get(name)) for name, field in fields)


def _inner(kind: object) -> tuple[type[Model] | None, str]:
    """Return the model in a field's type, and how many of it there are: `[]`, `.NAME` or one."""
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


def _words(kind: object, *, null: bool = False) -> str:
    """Return a type as people write it; `null`: whether None is a value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(arguments[0])
    if is_typeddict(kind):
        return "mapping"
    if origin in (list, Sequence):
        return f"list of {'mappings' if is_typeddict(arguments[0]) else _words(arguments[0], null=null)}"
    if origin is Mapping:
        return f"mapping of {_words(arguments[1], null=null)}"
    if origin is Literal:
        return " or ".join(f"`{argument}`" if argument != "" else '`""`' for argument in arguments)
    if origin in (Union, UnionType):
        words = dict.fromkeys(_words(one, null=null) for one in arguments if one is not type(None))
        return " or ".join([*words, *(["null"] if null and type(None) in arguments else [])])
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {_words(arguments[1], null=null)}"
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
    if value == "":
        return '`""`'
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _docstrings(model: type) -> dict[str, str]:
    """Return the text below each field, also of the bases of a TypedDict."""
    inherited = [base for base in _bases(model) if is_typeddict(base) and base.__doc__]
    said = {name: text for base in inherited for name, text in _docstrings(base).items()}
    return {**said, **field_texts(model)}


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
