"""Objects in Kubernetes' protobuf encoding, used by kubectl's `create` and evictions.

Only the fields of those requests are supported; any other field with a value is refused by its number. Numbers and
types are those of k8s.io/api and k8s.io/apimachinery (generated.proto), which may not change.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.api.failure import Failure

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
"""The prefix of a runtime.Unknown, which has the kind and the object."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MESSAGES: Mapping[str, str] = {
    # name=number:type; * is a list; text, bytes, flag, int (0 is nothing), number (0 counts), map (of texts), bytemap.
    "Unknown": "typeMeta=1:TypeMeta raw=2:bytes contentEncoding=3:text contentType=4:text",
    "TypeMeta": "apiVersion=1:text kind=2:text",
    "ObjectMeta": "name=1:text generateName=2:text namespace=3:text uid=5:text resourceVersion=6:text labels=11:map "
    "annotations=12:map finalizers=14:*text creationTimestamp=8:nothing selfLink=4:text generation=7:int",
    "Namespace": "metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:nothing",
    "NamespaceSpec": "finalizers=1:*text",
    "ConfigMap": "metadata=1:ObjectMeta immutable=4:flag data=2:map binaryData=3:bytemap",
    "Secret": "metadata=1:ObjectMeta immutable=5:flag data=2:bytemap stringData=4:map type=3:text",
    "ServiceAccount": "metadata=1:ObjectMeta automountServiceAccountToken=4:flag",
    "Service": "metadata=1:ObjectMeta spec=2:ServiceSpec status=3:nothing",
    "ServiceSpec": "ports=1:*ServicePort selector=2:map clusterIP=3:text type=4:text externalIPs=5:*text "
    "sessionAffinity=7:text loadBalancerIP=8:text externalName=10:text externalTrafficPolicy=11:text "
    "publishNotReadyAddresses=13:flag ipFamilyPolicy=17:text clusterIPs=18:*text ipFamilies=19:*text",
    "ServicePort": "name=1:text protocol=2:text port=3:int targetPort=4:IntOrString nodePort=5:int appProtocol=6:text",
    "Pod": "metadata=1:ObjectMeta spec=2:PodSpec status=3:nothing",
    "PodTemplateSpec": "metadata=1:ObjectMeta spec=2:PodSpec",
    "PodSpec": "containers=2:*Container restartPolicy=3:text terminationGracePeriodSeconds=4:number dnsPolicy=6:text "
    "nodeSelector=7:map nodeName=10:text hostNetwork=11:flag hostPID=12:flag hostIPC=13:flag hostname=16:text "
    "subdomain=17:text schedulerName=19:text initContainers=20:*Container serviceAccountName=8:text",
    "Container": "name=1:text image=2:text command=3:*text args=4:*text workingDir=5:text ports=6:*ContainerPort "
    "env=7:*EnvVar resources=8:Resources imagePullPolicy=14:text stdin=16:flag stdinOnce=17:flag tty=18:flag "
    "terminationMessagePath=13:text terminationMessagePolicy=20:text",
    "ContainerPort": "name=1:text hostPort=2:int containerPort=3:int protocol=4:text hostIP=5:text",
    "EnvVar": "name=1:text value=2:text",
    "Resources": "",
    "Deployment": "metadata=1:ObjectMeta spec=2:DeploymentSpec status=3:nothing",
    "DeploymentSpec": "replicas=1:number selector=2:LabelSelector template=3:PodTemplateSpec strategy=4:Strategy "
    "minReadySeconds=5:int revisionHistoryLimit=6:number paused=7:flag progressDeadlineSeconds=9:number",
    "Strategy": "type=1:text rollingUpdate=2:RollingUpdate",
    "RollingUpdate": "maxUnavailable=1:IntOrString maxSurge=2:IntOrString",
    "LabelSelector": "matchLabels=1:map matchExpressions=2:*Requirement",
    "Requirement": "key=1:text operator=2:text values=3:*text",
    "Eviction": "metadata=1:ObjectMeta deleteOptions=2:DeleteOptions",
    "DeleteOptions": "gracePeriodSeconds=1:number propagationPolicy=4:text dryRun=5:*text orphanDependents=3:flag "
    "preconditions=2:Preconditions ignoreStoreReadErrorWithClusterBreakingPotential=6:flag",
    "Preconditions": "uid=1:text resourceVersion=2:text",
    "IntOrString": "type=1:int intVal=2:int strVal=3:text",
    "Entry": "key=1:text value=2:text",
    "BytesEntry": "key=1:text value=2:bytes",
}


def decoded(data: bytes) -> dict[str, Any]:
    """Return the object of a request's body. Raises Failure (400, 415)."""
    try:
        if not data.startswith(MAGIC):
            raise ValueError("not a Kubernetes object")
        unknown = _message("Unknown", data[len(MAGIC) :])
        meta = unknown.get("typeMeta", {})
        kind = meta.get("kind", "")
        if kind not in MESSAGES:
            raise Failure(415, f"{kind or 'this'} is not served as protobuf (want application/json)")
        return {**meta, **_message(kind, base64.b64decode(unknown.get("raw", "")))}
    except (ValueError, IndexError, RecursionError) as error:
        raise Failure(400, f"the request's body is not an object in protobuf: {error}") from error


def _fields_of(message: str) -> dict[int, tuple[str, str]]:
    parts = (one.partition("=") for one in MESSAGES[message].split())
    split = ((name, *rest.partition(":")) for name, _, rest in parts)
    return {int(number): (name, kind) for name, number, _, kind in split}


def _message(message: str, data: bytes) -> dict[str, Any]:
    known = _fields_of(message)
    found: dict[str, Any] = {}
    for number, value in _raw_fields(data):
        name, kind = known.get(number, ("", ""))
        if not name:
            if _holds_something(value):
                raise Failure(415, f"field {number} of {message} is not served as protobuf (want application/json)")
            continue
        if kind in ("map", "bytemap"):
            entry = _message("Entry" if kind == "map" else "BytesEntry", _bytes(value))
            found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
        elif kind.startswith("*"):
            found.setdefault(name, []).append(_value(kind[1:], value))
        elif (one := _value(kind, value)) not in (None, "", {}):
            found[name] = one
    return found


def _value(kind: str, value: int | bytes) -> Any:  # noqa: ANN401 - JSON
    match kind:
        case "nothing":
            return None
        case "text":
            return _bytes(value).decode()
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "flag":
            return True if value else None
        case "int":
            return _number(value) or None
        case "number":
            return _number(value)
        case "IntOrString":
            either = _message(kind, _bytes(value))
            return either.get("strVal", "") if either.get("type") else either.get("intVal")
        case _:
            return _message(kind, _bytes(value))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number instead of bytes")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes instead of a number")
    return value - (1 << 64) if value >> 63 else value


def _holds_something(value: int | bytes) -> bool:
    """Return whether a field has a value: clients send empty ones too."""
    if isinstance(value, int):
        return value != 0
    if not value:
        return False
    try:
        return any(_holds_something(inner) for _, inner in _raw_fields(value))
    except (ValueError, IndexError):
        return True


def _raw_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field. Raises ValueError, IndexError."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, offset = _varint(data, offset)
            yield number, value
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            size, offset = _varint(data, offset)
        if size is None or not number or offset + size > len(data):
            raise ValueError("truncated, or not a message")
        yield number, data[offset : offset + size]
        offset += size


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if not byte & 0x80:
            return value, offset
        if shift > 63:
            raise ValueError("a number that is too long")
