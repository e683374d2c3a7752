"""The three kinds of patches: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

The last is Kubernetes' own: lists are merged item by item if Kubernetes names a merge key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonpatch

from testbed.api.failure import Failure

Object = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "taints": ("key",),
    # A container's, and a Service's.
    "ports": ("containerPort", "port"),
}
"""patchMergeKey of Kubernetes' API types (core/v1 and apps/v1), by field."""


def patched(item: Object, kind: str, patch: object) -> Object:
    """Return an object with a patch applied; `kind` is its content type.

    Raises Failure: 415 for another content type, 400 and 422 for a patch that does not apply.
    """
    apply = _BY_TYPE.get(kind)
    if apply is None:
        raise Failure(415, f"unknown kind of patch (got {kind}; want {', '.join(_BY_TYPE)})")
    try:
        result = apply(item, patch)
    except (TypeError, KeyError, AttributeError, RecursionError) as failure:
        # Of another form than its kind has: a number in place of a list, a name that is a mapping.
        raise Failure(422, f"the patch does not fit: {failure}") from failure
    if not isinstance(result, dict):
        raise Failure(422, "the patch leaves no object")
    return result


def _json_patch(item: Object, patch: object) -> object:
    if not isinstance(patch, list):
        raise Failure(400, f"a JSON patch is a list of operations (got {type(patch).__name__})")
    try:
        return jsonpatch.apply_patch(item, patch)
    except jsonpatch.JsonPatchTestFailed as failure:
        raise Failure(422, f"the patch's test failed: {failure}") from failure
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as failure:
        raise Failure(422, f"the patch does not fit: {failure}") from failure


def _merge(item: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    result = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _strategic(item: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(item) if isinstance(item, dict) else {}
    kept = patch.get("$retainKeys")
    if isinstance(kept, list):
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [one for one in result.get(field, ()) if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list) and key == "finalizers":
            result[key] = list(dict.fromkeys([*result.get(key, ()), *value]))
        elif isinstance(value, list) and (merge_key := _merge_key(key, value, result.get(key))):
            order = patch.get(f"$setElementOrder/{key}")
            result[key] = _merge_lists(result.get(key) or [], value, merge_key, order)
        else:
            result[key] = _strategic(result.get(key), value)
    for key, order in patch.items():
        field = key.removeprefix("$setElementOrder/")
        if field != key and field not in patch and isinstance(result.get(field), list):
            merge_key = _merge_key(field, order, result[field])
            result[field] = _in_order(result[field], order, merge_key) if merge_key else result[field]
    return result


def _merge_key(field: str, patch: Sequence[Any], there: object) -> str | None:
    """Return the merge key of a list; None for one that is replaced as a whole."""
    items = [*patch, *(there if isinstance(there, list) else ())]
    named = [one for one in items if isinstance(one, dict) and one.keys() - {"$patch"}]
    if not named or len(named) != sum(1 for one in items if one != {"$patch": "replace"}):
        return None
    return next((key for key in MERGE_KEYS.get(field, ()) if all(key in one for one in named)), None)


def _merge_lists(there: list[Any], patch: list[Any], key: str, order: object) -> list[Any]:
    if {"$patch": "replace"} in patch:
        return [one for one in patch if one != {"$patch": "replace"}]
    # As Kubernetes does: deletions first, of every item with the key; a change is one of the first with it.
    gone = {one[key] for one in patch if one.get("$patch") == "delete"}
    merged = [one for one in there if one[key] not in gone]
    places = dict[Any, int]()
    for number, one in enumerate(merged):
        places.setdefault(one[key], number)
    for one in patch:
        if one.get("$patch") == "delete":
            continue
        place = places.setdefault(one[key], len(merged))
        merged[place : place + 1] = [_strategic(merged[place] if place < len(merged) else None, one)]
    return _in_order(merged, order, key)


def _in_order(items: list[Any], order: object, key: str) -> list[Any]:
    if not isinstance(order, list):
        return items
    places = {one.get(key): number for number, one in enumerate(order) if isinstance(one, dict)}
    return sorted(items, key=lambda one: places.get(one[key], len(places)))


_BY_TYPE: Mapping[str, Callable[[Object, object], Any]] = {
    JSON_PATCH: _json_patch,
    MERGE_PATCH: _merge,
    STRATEGIC_PATCH: _strategic,
}
