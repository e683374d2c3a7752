"""Clients' first requests: the groups, kinds and versions (discovery), and their fields (OpenAPI).

The schemas are generated from the models that read manifests, so that `kubectl explain` shows what the lab accepts.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from testbed.api.explained import explained_schema
from testbed.api.resources import GROUPS, RESOURCES, Resource, root_of

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
    about = {"group": resource.group, "version": resource.version, "kind": resource.kind.name}
    checked = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    return {
        f"{resource.collection}/{{name}}": {
            "patch": {
                "parameters": [checked],
                "x-kubernetes-group-version-kind": about,
                "responses": {"200": {"description": "OK"}},
            }
        }
    }


def _fixed() -> dict[str, Document]:
    roots = list(map(root_of, GROUPS))
    groups = {name: _group(name) for name in GROUPS if name}
    return {
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())},
        **{f"/apis/{name}": {"apiVersion": "v1", **group} for name, group in groups.items()},
        **{root_of(name): _resources(name) for name in GROUPS},
        "/openapi/v3": {"paths": {one.strip("/"): {"serverRelativeURL": f"/openapi/v3{one}"} for one in roots}},
    }


DOCUMENTS: Mapping[str, Callable[[], Document]] = {
    **{path: partial(dict, document) for path, document in _fixed().items()},
    **{f"/openapi/v3{root_of(name)}": partial(_schemas, name) for name in GROUPS},
}
"""Path → what returns the document there; schemas take a moment, and are made when they are asked for."""
