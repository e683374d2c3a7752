"""What changes nothing here is accepted with a warning; what would change something is refused by name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.cluster.kinds import MANIFESTS
from testbed.cluster.kubernetes_words import INSTEAD, INSTEAD_OF_KIND, KUBERNETES_KEYS
from testbed.cluster.manifest_model import Model
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.cluster.without_meaning import KINDS_WITHOUT_MEANING, WITHOUT_MEANING
from testbed.command import cli
from testbed.command.command_line import verbs
from testbed.output import tables

assert cli
DAEMON_SET = """\
nodes: [node1]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, uid: 4f2a}
spec:
  revisionHistoryLimit: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      tolerations: []
      containers:
      - {name: a, image: shell, imagePullPolicy: Always, tty: true}
      - {name: b, image: shell, imagePullPolicy: Always}
"""


def read(text: str) -> Cluster:
    return read_cluster(text.encode(), "c.yaml")


def pod(spec: str) -> str:
    return f"nodes: [node1]\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def test_each_is_named_with_its_place_and_the_rest_is_read() -> None:
    found = read(DAEMON_SET)
    assert [str(warning).removeprefix("error: c.yaml:") for warning in found.warnings] == [
        "5:23: metadata.uid: ignored: written by an API server",
        "7:3: spec.revisionHistoryLimit: ignored: a DaemonSet's former templates are not kept",
        "12:7: spec.template.spec.serviceAccountName: ignored: a lab has no accounts",
        "15:33: spec.template.spec.containers[0].imagePullPolicy: ignored: nothing is pulled",
        "15:58: spec.template.spec.containers[0].tty: ignored: a container has no terminal; exec -it brings one",
        "16:33: spec.template.spec.containers[1].imagePullPolicy: ignored: nothing is pulled",
    ]
    assert len(found.daemon_sets[0].spec.template.spec.containers) == 2


def test_equal_problems_are_reported_once_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tables.warnings(read(DAEMON_SET).warnings)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[3] == (
        "warning: c.yaml:15:33: spec.template.spec.containers[0].imagePullPolicy: ignored: nothing is pulled "
        "(and line 16)"
    )


def test_strict_refuses_them(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(DAEMON_SET, encoding="utf-8")
    assert CliRunner().invoke(verbs, ["validate", str(file)]).exit_code == 0
    refused = CliRunner().invoke(verbs, ["validate", str(file), "--strict"])
    assert isinstance(refused.exception, SpecError)
    assert len(refused.exception.problems) == 6


def test_a_value_decides_where_only_one_changes_nothing() -> None:
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    containers = "containers: [{name: c, image: shell}]"
    (warning,) = read(pod(f"{{affinity: {{podAntiAffinity: {{{preferred}: [1]}}}}, {containers}}}")).warnings
    assert "affinity: ignored: a preference" in str(warning)
    required = preferred.replace("preferred", "required")
    (problem,) = problems_of(pod(f"{{affinity: {{podAntiAffinity: {{{required}: [1]}}}}, {containers}}}"))
    assert "spec.affinity: not supported here (got affinity; want nodeSelector, or nodeName)" in problem


def test_a_changing_request_is_refused_by_name_without_a_second_error() -> None:
    volume = "{name: v, persistentVolumeClaim: {claimName: x}}"
    mount = "volumeMounts: [{name: v, mountPath: /v}]"
    (problem,) = problems_of(pod(f"{{volumes: [{volume}], containers: [{{name: c, image: shell, {mount}}}]}}"))
    want = "want emptyDir: {}, or hostPath: {path: …}"
    assert problem.endswith(f"persistentVolumeClaim: not supported here (got persistentVolumeClaim; {want})")


@pytest.mark.parametrize(
    "kind",
    [
        *("apps/v1 StatefulSet", "batch/v1 Job", "batch/v1 CronJob", "networking.k8s.io/v1 Ingress"),
        *("v1 PersistentVolumeClaim", "autoscaling/v2 HorizontalPodAutoscaler"),
    ],
)
def test_an_unsupported_kind_is_refused_with_an_alternative(kind: str) -> None:
    version, name = kind.split()
    (problem,) = problems_of(f"nodes: [node1]\n---\napiVersion: {version}\nkind: {name}\nspec: {{replicas: x}}\n")
    assert f"kind: a lab does not have this kind (got {kind}; want {INSTEAD_OF_KIND[name]})" in problem


ACCOUNT = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, labels: {account: web}}, secrets: [{name: a}]}"


def test_a_kind_that_changes_nothing_is_left_out_with_one_warning() -> None:
    file, what = (
        pod("{containers: [{name: c, image: shell}]}"),
        "kind: a ServiceAccount is ignored: a lab has no accounts",
    )
    found = read(f"{file}---\n{ACCOUNT}\n")
    assert ([str(one) for one in found.warnings], len(found.written)) == ([f"error: c.yaml:8:24: {what}"], 1)
    listed = read(f"{file}---\napiVersion: v1\nkind: List\nitems: [{ACCOUNT}]\n")
    assert ([str(one) for one in listed.warnings], len(listed.written)) == ([f"error: c.yaml:10:32: {what}"], 1)


def test_strict_refuses_a_kind_that_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"nodes: [node1]\n---\n{ACCOUNT}\n", encoding="utf-8")
    assert CliRunner().invoke(verbs, ["validate", str(file)]).exit_code == 0
    refused = CliRunner().invoke(verbs, ["validate", str(file), "--strict"])
    assert isinstance(refused.exception, SpecError)
    (problem,) = refused.exception.problems
    assert problem.what.endswith("a ServiceAccount is ignored: a lab has no accounts")


def test_a_kind_that_changes_nothing_cannot_come_before_the_cluster_and_is_meant_by_a_misspelling() -> None:
    (first,) = problems_of(f"{ACCOUNT}\n")
    assert "the first document is not a Cluster (got ServiceAccount; " in first
    (misspelt,) = problems_of(f"nodes: [node1]\n---\n{ACCOUNT.replace('Account,', 'Acount,')}\n")
    assert misspelt.endswith('did you mean "v1 ServiceAccount"?')


def test_each_kind_is_read_ignored_or_refused_and_only_one_of_these() -> None:
    read_kinds, ignored = {name for _, name in MANIFESTS}, {name for _, name in KINDS_WITHOUT_MEANING}
    assert not set(INSTEAD_OF_KIND) & read_kinds
    assert not ignored & (set(INSTEAD_OF_KIND) | read_kinds)


def test_a_list_of_any_of_these_kinds_is_its_items() -> None:
    daemon_set = DAEMON_SET.partition("---\n")[2].replace("\n", "\n  ")
    for name in ("List", "DaemonSetList"):
        version = "v1" if name == "List" else "apps/v1"
        text = f"nodes: [node1]\n---\napiVersion: {version}\nkind: {name}\nitems:\n- {daemon_set}\n"
        assert [one.name for one in read(text).daemon_sets] == ["web"]


def test_no_field_is_both_read_and_ignored_and_every_hint_is_for_a_known_word() -> None:
    for model, keys in WITHOUT_MEANING.items():
        assert issubclass(model, Model)
        assert not {field.alias for field in model.model_fields.values()} & set(keys)
    assert set(INSTEAD) <= KUBERNETES_KEYS


@pytest.mark.parametrize(
    ("context", "image", "wrong"),
    [
        ("{runAsNonRoot: true}", "nginx", "it would run as root (got image nginx, which runs as root"),
        ("{runAsNonRoot: true, runAsUser: 0}", "shell", "it would run as root (got runAsUser: 0"),
        ("{privileged: true, allowPrivilegeEscalation: false}", "shell", "privileged containers can always"),
        ("{capabilities: {add: [NET_BING]}}", "shell", "no such capability (got NET_BING"),
    ],
)
def test_a_security_context_that_cannot_be_is_refused(context: str, image: str, wrong: str) -> None:
    (problem,) = problems_of(pod(f"{{containers: [{{name: c, image: {image}, securityContext: {context}}}]}}"))
    assert wrong in problem
