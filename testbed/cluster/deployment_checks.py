"""What no field of a Deployment can know alone. Pure."""

from collections.abc import Iterator

from testbed.cluster.deployment import LONGEST_NAME, Deployment
from testbed.cluster.pod_checks import check_pod_spec
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

TEMPLATE = ("spec", "template")


def check_deployment(source: Source, deployment: object) -> Iterator[Problem]:
    """What the parts of one Deployment say about each other."""
    assert isinstance(deployment, Deployment)
    if len(deployment.name) > LONGEST_NAME:
        got = f"{len(deployment.name)} characters"
        what = f"too long for the names of its pods (got {got}; want at most {LONGEST_NAME})"
        yield source.problem(("metadata", "name"), what)
    template = deployment.spec.template
    labels_are_right = not source.is_doubtful((*TEMPLATE, "metadata"))
    for key, value in deployment.spec.selector.match_labels.items():
        if labels_are_right and template.metadata.labels.get(key) != value:
            got = f"{key}: {value}, the template has {template.metadata.labels.get(key, 'no such label')}"
            what = f"selects none of its own pods (got {got}; want the same label under spec.template.metadata.labels)"
            yield source.problem(("spec", "selector", "matchLabels", key), what)
    if template.spec.restart_policy != "Always":
        path = (*TEMPLATE, "spec", "restartPolicy")
        what = f"pods of a Deployment always restart (got {template.spec.restart_policy}; want Always)"
        yield source.problem(path, what)
    yield from check_pod_spec(source, (*TEMPLATE, "spec"), template.spec)
