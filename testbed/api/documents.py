"""Clients' first requests: the groups, kinds and versions (discovery), and their fields (OpenAPI).

The schemas are generated from the models that read manifests, so that `kubectl explain` shows what the lab accepts.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from testbed.api.explained import explained_schema
from testbed.api.resources import GROUPS, RESOURCES, Resource

Document = Mapping[str, Any]
KUBERNETES = "1.36"
"""The version whose shapes and behaviour are served."""
REFERENCE = "#/components/schemas/"


def version(testbed: str) -> Document:
    """Return the answer to /version."""
    major, _, minor = KUBERNETES.partition(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES}.0+testbed.{testbed}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def discovery(path: str) -> Document | None:
    """Return the answer to a path of discovery; None for any other path."""
    words = path.strip("/").split("/")
    if words == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if words == ["apis"]:
        groups = [_group(name) for name in GROUPS if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if words[0] == "apis" and len(words) == 2 and words[1] in GROUPS:
        return {"apiVersion": "v1", **_group(words[1])}
    group = _group_named(words)
    return None if group is None else _resources(group)


def _group_named(words: Sequence[str]) -> str | None:
    """Return the group of `api/v1` or `apis/apps/v1`; None for others."""
    group = "" if words[0] == "api" else words[1] if words[0] == "apis" and len(words) > 1 else None
    if group is None or group not in GROUPS or len(words) != 2 + bool(group):
        return None
    return group if words[-1] == GROUPS[group] else None


def _group(name: str) -> Document:
    served = {"groupVersion": f"{name}/{GROUPS[name]}", "version": GROUPS[name]}
    return {"kind": "APIGroup", "name": name, "versions": [served], "preferredVersion": served}


def _resources(group: str) -> Document:
    listed: list[Document] = []
    for one in RESOURCES:
        if one.group != group:
            continue
        kind = one.kind
        listed.append(
            {
                "name": kind.plural,
                "singularName": kind.name.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": list(one.verbs),
                "shortNames": list(kind.short_names),
                **({"categories": ["all"]} if kind.in_all and kind.namespaced else {}),
            }
        )
        listed += [
            {
                "name": f"{kind.plural}/{word}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": what,
                "verbs": list(verbs),
            }
            for word, (what, verbs) in one.subresources.items()
        ]
    where = f"{group}/{GROUPS[group]}" if group else GROUPS[group]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": where, "resources": listed}


def open_api(path: str) -> Document | None:
    """Return the answer to a path of OpenAPI version 3; None for any other path."""
    words = path.strip("/").split("/")
    if words == ["openapi", "v3"]:
        paths = [f"apis/{group}/{served}" if group else f"api/{served}" for group, served in GROUPS.items()]
        return {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}"} for one in paths}}
    if words[:2] != ["openapi", "v3"]:
        return None
    group = _group_named(words[2:])
    return None if group is None else _schemas(group)


@cache
def _schemas(group: str) -> Document:
    paths: dict[str, Document] = {}
    schemas: dict[str, Document] = {}
    for one in RESOURCES:
        if one.group == group:
            schemas |= _schemas_of(one)
            paths |= _paths_of(one)
    return {"openapi": "3.0.0", "info": {"title": "testbed", "version": KUBERNETES}, "paths": paths} | {
        "components": {"schemas": schemas}
    }


def _schemas_of(resource: Resource) -> dict[str, Document]:
    kind = resource.kind
    meaning = [{"group": resource.group, "version": resource.version, "kind": kind.name}]
    if kind.manifest is None:
        return {kind.name: {"type": "object", "x-kubernetes-group-version-kind": meaning}}
    model, _ = kind.manifest()
    schema = explained_schema(model, REFERENCE + "{model}")
    parts: dict[str, Document] = schema.pop("$defs", {})
    return {**parts, kind.name: {**schema, "x-kubernetes-group-version-kind": meaning}}


def _paths_of(resource: Resource) -> dict[str, Document]:
    """Return the paths that let kubectl leave the validation of fields to the server."""
    kind = resource.kind
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    within = "/namespaces/{namespace}" if kind.namespaced else ""
    about = {"group": resource.group, "version": resource.version, "kind": kind.name}
    checked = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    return {
        f"{root}{within}/{kind.plural}/{{name}}": {
            "patch": {
                "parameters": [checked],
                "x-kubernetes-group-version-kind": about,
                "responses": {"200": {"description": "OK"}},
            }
        }
    }
