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
TEXTS: Mapping[str, str] = {
    # Of several models.
    "annotations": "Notes of users and programs.",
    "apiVersion": "The version of the kind's fields.",
    "args": "Arguments; by default those of the image.",
    "command": "The program and its first arguments; by default those of the image.",
    "data": "Keys and their values.",
    "defaultMode": "Permission bits of the files.",
    "image": "Selects the recipe that runs; nothing is pulled.",
    "key": "The key in the object.",
    "kind": "The kind of the object.",
    "labels": "Labels, by which selectors find it.",
    "matchLabels": "Labels that an object must have, with these values.",
    "name": "The name, unique among those of its kind and place.",
    "namespace": "The namespace of the object.",
    "nodeName": "The node that runs the pod; by default the one with the fewest pods.",
    "port": "The port to connect to.",
    "protocol": "The transport protocol.",
    "replicas": "The number of pods.",
    "restartPolicy": "Which containers are started again when they end.",
    "runAsGroup": "The group of the processes.",
    "runAsNonRoot": "Whether a container that would run as root is refused.",
    "runAsUser": "The user of the processes; by default that of the image.",
    "terminationGracePeriodSeconds": "The time from SIGTERM to SIGKILL.",
    "value": "The value.",
    "workingDir": "The directory in which the program starts.",
    # Of one.
    "Capabilities.add": "Capabilities in addition to the defaults.",
    "Capabilities.drop": "Capabilities that are taken away; ALL: every one.",
    "ClientIPConfig.timeoutSeconds": "How long a client keeps its endpoint after its last connection.",
    "ContainerPort.containerPort": "The port on which the program listens.",
    "ContainerPort.hostPort": "The node's port that leads to it.",
    "DnsConfig.nameservers": "Addresses of additional DNS servers.",
    "DnsConfig.searches": "Additional domains in which short names are looked up.",
    "FieldRef.fieldPath": "The path of the field, such as metadata.name.",
    "FileField.fieldPath": "The path of the field, such as metadata.labels.",
    "GrpcAction.service": "The service whose health is asked for; empty: the whole server's.",
    "HostAlias.hostnames": "Names of the address.",
    "HostAlias.ip": "The address.",
    "HostPath.path": "The path on the machine.",
    "HostPath.type": "What must be there, or is made; empty: no check.",
    "HttpGetAction.path": "The path of the URL.",
    "HttpGetAction.scheme": "HTTP or HTTPS; a certificate is not checked.",
    "IPBlock.cidr": "The network, such as 10.0.0.0/16.",
    "IPBlock.except": "Networks within it that do not belong to the block.",
    "LabelExpression.key": "The key of the label.",
    "LabelExpression.operator": "How the label is compared.",
    "LabelExpression.values": "The values for In and NotIn.",
    "PodSecurityContext.supplementalGroups": "More groups of the processes.",
    "PodSpec.hostname": "The pod's host name; by default its own name.",
    "PodSpec.shareProcessNamespace": "Whether containers see each other's processes.",
    "PolicyPort.endPort": "The last port of a range that begins with `port`.",
    "Probe.failureThreshold": "Failures in a row that decide.",
    "Probe.initialDelaySeconds": "The time from the container's start to the first try.",
    "Probe.periodSeconds": "The time between two tries.",
    "Probe.successThreshold": "Successes in a row that decide.",
    "Probe.timeoutSeconds": "How long a try may take.",
    "SecretVolume.secretName": "The name of the Secret.",
    "SecurityContext.privileged": "Whether it has every right that a lab can give.",
    "SecurityContext.readOnlyRootFilesystem": "Whether its root is read-only.",
    "ServiceSpec.selector": "Labels of the pods that get its connections.",
    "ServiceSpec.sessionAffinity": "ClientIP: a client's connections all go to the same pod.",
    "ServiceSpec.type": "Where it can be reached: in the lab, also at nodes, also at an external address.",
    "SleepAction.seconds": "How long to sleep.",
    "Strategy.type": "How pods of an old template are replaced.",
    "TcpSocketAction.host": "The host to connect to; by default the pod.",
    "VolumeMount.mountPath": "The path in the container.",
    "VolumeMount.readOnly": "Whether the container may only read it.",
    "VolumeMount.subPath": "The part of the volume; by default all of it.",
}
"""Texts of fields that need none beside their definition, by name or by model and name."""


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
            text = TEXTS.get(f"{part['title']}.{name}") or TEXTS.get(name) or inner.get("description", "")
            field.setdefault("description", text)
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
