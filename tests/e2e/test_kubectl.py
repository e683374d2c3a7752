"""The real kubectl against a lab: every line of docs/guide/kubectl.md, and what takes more than a line."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from testbed.pytest_plugin import NewLab
from tests.documents import ROOT, blocks
from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.e2e.manifests import deployment
from tests.waiting import constantly, wait_until

PAGE = "docs/guide/kubectl.md"
LIMIT_S = 90.0
OLDEST = (1, 31)
WEB = deployment("applied", "nginx", port=80, labels="app: applied")
NAMES = ("api", "v1", "apis", "apps", "namespaces", "default", "pods", "shell1", "log", "exec")
SHAPES = {
    "kubectl get nodes": r"NAME +STATUS +ROLES +AGE +VERSION\n.*\nnode2 +Ready(,SchedulingDisabled)? ",
    "kubectl get pods": r"NAME +READY +STATUS +RESTARTS +AGE\n",
    "kubectl get pods -A -o wide": r"NAMESPACE +NAME +READY +STATUS +RESTARTS +AGE +IP +NODE ",
    "kubectl get pods --field-selector spec.nodeName=node1": r"NAME [^\n]*\necho1 [^\n]*\nshell1 [^\n]*\n$",
    "kubectl get pod shell1 -o jsonpath={.status.podIP}": r"^10\.0\.\d+\.\d+$",
    "kubectl get deployments,replicasets -l app=web": r"deployment.apps/web +2/2 +2 +2 .*replicaset.apps/web-",
    "kubectl describe pod shell1": r"Node: +node1/",
    "kubectl describe secret login -n shop": r"user: +4 bytes",
    "kubectl get endpoints web": r"web +10\.0\.\d+\.\d+:80,10\.0\.\d+\.\d+:80 ",
    "kubectl get endpointslices -l kubernetes.io/service-name=web": r"web-1 +IPv4 +80 +10\.0\.",
    "kubectl describe service web": r"Endpoints: +10\.0\.\d+\.\d+:80",
    "kubectl auth can-i create pods": r"^yes$",
    "kubectl exec shell1 -- curl -s -m 5 http://web/": r"<title>",
    "kubectl exec deploy/web -- hostname": r"^web-\w+-\w+$",
    "kubectl logs deploy/web --timestamps --since=10m": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ",
    "kubectl rollout history deployment/web": r"REVISION +CHANGE-CAUSE\n1 .*\n2 ",
    "kubectl get pods -L tier": r"TIER\n(.*\n)*shell1 .* front\n",
    "kubectl exec sleeper -- grep -c testbed /tmp/read-me": r"^[1-9]\d*$",
    "kubectl create deployment tried --image=nginx --dry-run=server": r"created \(server dry run\)",
}
"""What a line prints, where its success says too little."""
ALSO: Mapping[str, Sequence[str]] = {
    "kubectl cluster-info": ("kubectl api-versions",),
    "kubectl explain pod.spec.containers": ("kubectl get nodes",),
    "kubectl get nodes -o wide": ("kubectl get pods",),
    "kubectl get pods -A -o wide": ("kubectl get pods,services",),
    "kubectl get all": ("kubectl get pod shell1 -o yaml",),
    "kubectl get pod shell1 -o jsonpath={.status.podIP}": (
        "kubectl get pods --field-selector spec.nodeName=node1",
        "kubectl get pods --sort-by=.metadata.name",
    ),
    "kubectl describe pod shell1": ("kubectl describe node node1",),
    "kubectl create namespace shop": ("kubectl get namespaces --show-labels",),
    "kubectl create secret generic login --from-literal=user=anna -n shop": (
        "kubectl get configmap settings -n shop -o yaml",
        "kubectl describe secret login -n shop",
    ),
    "kubectl rollout status deployment/web --timeout=60s": (
        "kubectl get deployments,replicasets -l app=web",
        "kubectl describe deployment web",
    ),
    "kubectl get endpoints web": (
        "kubectl get endpointslices -l kubernetes.io/service-name=web",
        "kubectl describe service web",
    ),
    "kubectl exec shell1 -- curl -s -m 5 http://web/": ("kubectl exec deploy/web -- hostname",),
    "kubectl logs deploy/web --tail=3": (
        "kubectl logs -l app=web --tail=1 --prefix",
        "kubectl logs deploy/web --timestamps --since=10m",
    ),
    "kubectl set image deployment/web nginx=httpd": ("kubectl rollout status deployment/web --timeout=60s",),
    "kubectl rollout restart deployment/web": ("kubectl rollout status deployment/web --timeout=60s",),
    'kubectl patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":2}]': (
        'kubectl patch deployment web --type=merge -p {"metadata":{"annotations":{"by":"kubectl"}}}',
    ),
    "kubectl label pod shell1 tier=front": ("kubectl get pods -L tier", "kubectl label pod shell1 tier-"),
    "kubectl cp README.md sleeper:/tmp/read-me": ("kubectl exec sleeper -- grep -c testbed /tmp/read-me",),
    "kubectl cordon node2": ("kubectl get nodes",),
    "kubectl drain node2 --ignore-daemonsets --force": ("kubectl uncordon node2",),
    "kubectl create deployment tried --image=nginx --dry-run=server": (
        "kubectl create deployment drawn --image=nginx --dry-run=client -o yaml",
        "kubectl get networkpolicies -A",
    ),
    "kubectl delete service,deployment web": ("kubectl wait --for=delete pod -l app=web --timeout=60s",),
}
"""A line of the page → other forms of it, which work behind it and which the page names in words."""


def _program() -> str:
    """Return the kubectl of the .venv, or one that is there."""
    found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.fail("no kubectl (want: sudo scripts/install --tests)", pytrace=False)
    said = subprocess.run([found, "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
    version = json.loads(said.stdout)["clientVersion"]
    assert (int(version["major"]), int(version["minor"])) >= OLDEST, f"{found} is {version['gitVersion']}"
    return found


class Kubectl:
    """kubectl with the kubeconfig of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.program = _program()
        self.config = Path(lab.must("kubeconfig").strip())
        self.environment = {**os.environ, "KUBECONFIG": str(self.config)}

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(
            [self.program, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=ROOT,
            timeout=LIMIT_S,
        )

    def must(self, *words: str, stdin: str = "") -> str:
        """Run it; what it printed."""
        found = self.run(*words, stdin=stdin)
        assert found.returncode == 0, f"kubectl {shlex.join(words)}: {found.stdout}{found.stderr}"
        return found.stdout

    def json(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Return what `-o json` printed."""
        return json.loads(self.must(*words, "-o", "json"))

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run it until the test has seen enough."""
        command = [self.program, *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @property
    def server(self) -> str:
        """Return where the API is."""
        address: str = json.loads(self.config.read_text())["clusters"][0]["cluster"]["server"]
        return address

    @property
    def token(self) -> str:
        """Return what lets a client in."""
        token: str = json.loads(self.config.read_text())["users"][0]["user"]["token"]
        return token


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab) -> Iterator[Lab]:
    """Yield a lab of this module."""
    with new_lab("two_nodes") as handle:
        yield Lab(handle.name)


@pytest.fixture(scope="module")
def kubectl(lab: Lab) -> Kubectl:
    """Return kubectl configured for the lab."""
    return Kubectl(lab)


def _lines(section: str) -> Sequence[tuple[str, str]]:
    """Return each command of a section, and what the page says below it."""
    (block,) = [one for one in blocks(ROOT / PAGE) if one.section == section]
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(command, said.strip()) for command, _, said in (part.partition("\n") for part in parts)]


@pytest.mark.timeout(400)  # sixty programs, one after the other, beside a lab
def test_every_line_of_the_page_behaves_as_against_a_cluster(new_lab: NewLab) -> None:
    with new_lab("two_nodes") as handle:
        _try_every_line(Kubectl(Lab(handle.name)))


SOON_S = 30.0
EVENTUALLY = {
    "kubectl exec shell1 -- curl -s -m 5 http://web/",
    "kubectl get endpoints web",
    "kubectl get endpointslices -l kubernetes.io/service-name=web",
    "kubectl describe service web",
    "kubectl logs deploy/web --timestamps --since=10m",
}
"""A name and endpoints follow their Service a moment later, and a log its container. They change nothing."""


def _try_every_line(kubectl: Kubectl) -> None:
    lines = [line for shown, _ in _lines("What works") for line in (shown, *ALSO.get(shown, ()))]
    assert len(lines) >= 60
    failed = []
    for line in lines:
        shape = SHAPES.get(line, "")
        until = time.monotonic() + (SOON_S if line in EVENTUALLY else 0)
        while True:
            # As the page has them, without a shell: patches are one word.
            found = kubectl.run(*line.split(" ")[1:])
            is_right = not found.returncode and re.search(shape, found.stdout, re.DOTALL if "\n(" not in shape else 0)
            if is_right or time.monotonic() >= until:
                break
        if not is_right:
            failed.append(f"{line}: exit {found.returncode}\n{found.stdout[-600:]}{found.stderr[-600:]}")
    assert not failed, f"{len(failed)} of {len(lines)} lines:\n" + "\n".join(failed)


@pytest.mark.parametrize(("line", "why"), _lines("What is refused"), ids=lambda text: text[:60])
def test_an_unserved_request_is_refused_with_the_reason_of_the_page(
    kubectl: Kubectl, line: str, why: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    found = kubectl.run(*line.replace("web.yaml", str(manifest)).split()[1:])
    assert found.returncode != 0
    assert why in found.stderr + found.stdout


def test_apply_twice_changes_once_and_diff_edit_and_replace_agree(kubectl: Kubectl) -> None:
    assert "created" in kubectl.must("apply", "-f", "-", stdin=WEB)
    assert "unchanged" in kubectl.must("apply", "-f", "-", stdin=WEB)
    assert not kubectl.must("diff", "-f", "-", stdin=WEB)
    changed = WEB.replace("replicas: 1", "replicas: 2")
    assert "+  replicas: 2" in kubectl.run("diff", "-f", "-", stdin=changed).stdout
    assert "configured" in kubectl.must("apply", "-f", "-", stdin=changed)
    kubectl.must("rollout", "status", "deployment/applied", "--timeout=60s")
    found = kubectl.json("get", "deployment", "applied")
    assert (found["spec"]["replicas"], found["status"]["readyReplicas"]) == (2, 2)
    assert found["metadata"]["generation"] == found["status"]["observedGeneration"]
    found["spec"]["replicas"] = 1
    assert "replaced" in kubectl.must("replace", "-f", "-", stdin=json.dumps(found))
    kubectl.must("delete", "deployment", "applied")


DAEMONS = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agents}
spec:
  selector: {matchLabels: {app: agents}}
  template:
    metadata: {labels: {app: agents}}
    spec: {containers: [{name: agent, image: shell}]}
"""


@pytest.mark.parametrize("verb", ["history", "undo"])
def test_the_rollout_history_of_a_daemon_set_is_refused_with_the_reason(kubectl: Kubectl, verb: str) -> None:
    kubectl.must("apply", "-f", "-", stdin=DAEMONS)
    kubectl.must("rollout", "status", "daemonset/agents", "--timeout=60s")
    refused = kubectl.run("rollout", verb, "daemonset/agents")
    assert refused.returncode == 1
    assert "a DaemonSet's former templates are not kept" in refused.stderr
    kubectl.must("delete", "daemonset", "agents")


def test_a_service_account_is_accepted_with_a_warning(kubectl: Kubectl) -> None:
    account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: builder}}"
    applied = kubectl.run("apply", "-f", "-", stdin=account)
    assert applied.stdout == "serviceaccount/builder created\n"
    assert applied.stderr == "Warning: kind: a ServiceAccount is ignored: a lab has no accounts\n"
    assert "deleted" in kubectl.must("delete", "-f", "-", stdin=account)
    assert kubectl.json("get", "serviceaccounts")["items"] == []


def test_the_second_of_two_writers_gets_a_conflict(kubectl: Kubectl) -> None:
    kubectl.must("create", "configmap", "shared", "--from-literal=a=1")
    read = kubectl.json("get", "configmap", "shared")
    kubectl.must("patch", "configmap", "shared", "-p", '{"data":{"a":"2"}}')
    read["data"]["a"] = "3"
    refused = kubectl.run("replace", "-f", "-", stdin=json.dumps(read))
    assert refused.returncode == 1
    assert "the object has been modified" in refused.stderr
    assert kubectl.json("get", "configmap", "shared")["data"] == {"a": "2"}
    kubectl.must("delete", "configmap", "shared")


def test_a_manifest_that_is_wrong_is_refused_with_the_lines_of_our_own_apply(kubectl: Kubectl) -> None:
    refused = kubectl.run("apply", "-f", "-", stdin=WEB.replace("image: nginx", "imagine: nginx"))
    assert refused.returncode == 1
    assert "imagine" in refused.stderr
    assert kubectl.run("get", "deployment", "applied").returncode == 1


def test_get_w_shows_a_change_as_it_happens(kubectl: Kubectl) -> None:
    with kubectl.running("get", "configmaps", "-w") as watching:
        kubectl.must("create", "configmap", "watched", "--from-literal=a=1")
        read_until(watching.stdout, r"watched +1 ")
        kubectl.must("patch", "configmap", "watched", "-p", '{"data":{"b":"2"}}')
        read_until(watching.stdout, r"watched +2 ")
    kubectl.must("delete", "configmap", "watched")


def test_port_forward_carries_requests_and_reports_a_closed_port(lab: Lab, kubectl: Kubectl) -> None:
    kubectl.must("run", "page", "--image=nginx", "--port=80")
    kubectl.must("wait", "--for=condition=Ready", "pod/page", "--timeout=60s")
    with kubectl.running("port-forward", "pod/page", ":80", ":81") as forwarding:
        said = read_until(forwarding.stdout, r"127\.0\.0\.1:\d+ -> 81")
        good, bad = re.findall(r"127\.0\.0\.1:(\d+) -> 8[01]", said)

        def fetch(_: int) -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{good}/", timeout=10) as answer:
                body: bytes = answer.read()
                return body

        with ThreadPoolExecutor(8) as clients:
            assert all(b"<title>" in page for page in clients.map(fetch, range(40)))
        with pytest.raises(OSError, match=r"."):
            urllib.request.urlopen(f"http://127.0.0.1:{bad}/", timeout=10)
        assert b"<title>" in fetch(0)
    kubectl.must("delete", "pod", "page")


def test_ten_megabytes_copied_there_and_back_are_the_same(kubectl: Kubectl, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(10_000_000))
    kubectl.must("cp", str(there), "shell1:/tmp/copied")
    kubectl.must("cp", "shell1:/tmp/copied", str(back))
    assert hashlib.sha256(there.read_bytes()).digest() == hashlib.sha256(back.read_bytes()).digest()
    kubectl.must("exec", "shell1", "--", "rm", "/tmp/copied")


def test_exec_hands_on_input_and_exit_code(kubectl: Kubectl) -> None:
    assert kubectl.must("exec", "-i", "shell1", "--", "cat", stdin="one\ntwo\n") == "one\ntwo\n"
    ended = kubectl.run("exec", "shell1", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ended.returncode, ended.stdout) == (7, "out\n")
    assert "err\n" in ended.stderr


TICKS = "import time\nfor n in range(10 ** 6):\n    print('tick', n, time.time(), flush=True)\n    time.sleep(0.5)"


def test_lines_of_a_log_have_times_and_are_chosen_by_them(lab: Lab, kubectl: Kubectl) -> None:
    kubectl.must("run", "ticker", "--image=shell", "--command", "--", "python3", "-c", TICKS)
    kubectl.must("wait", "--for=condition=Ready", "pod/ticker", "--timeout=60s")
    wait_until(lambda: "tick 6 " in kubectl.must("logs", "ticker"), timeout_s=30, what="the ticker ticks")
    stamped = kubectl.must("logs", "ticker", "--timestamps")
    delays = sorted(
        datetime.fromisoformat(line.split()[0]).timestamp() - float(line.split()[3]) for line in stamped.splitlines()
    )
    assert delays[0] >= 0
    assert delays[len(delays) // 2] < 1
    third = stamped.splitlines()[3].split()[0]
    later = kubectl.must("logs", "ticker", f"--since-time={third}", "--timestamps")
    # kubectl sends whole seconds.
    second = third.partition(".")[0]
    assert later.startswith(next(line for line in stamped.splitlines() if line.startswith(second)))
    assert lab.must("logs", "ticker", "--timestamps").startswith(stamped)
    asked_at = time.time()
    recent = [float(line.split()[2]) for line in lab.must("logs", "ticker", "--since", "2s").splitlines()]
    # What is written while the lab answers belongs to it too; the first ticks are older than 3 s.
    assert recent
    assert min(recent) > asked_at - 2.5
    # As k9s and stern ask.
    with kubectl.running("logs", "-f", "ticker", "--timestamps", "--since=48h", "--tail=1") as following:
        read_until(following.stdout, r"(\S+Z tick \d+ \S+\n){3}")
    refused = lab.testbed("logs", "node1", "--timestamps")
    assert (refused.code, refused.err.count("no times of lines are kept of node1")) == (1, 1)
    kubectl.must("delete", "pod", "ticker", "--grace-period=0")


FOLLOWERS = 20


def test_many_followed_logs_delay_no_other_client_and_end_with_theirs(lab: Lab, kubectl: Kubectl) -> None:
    def tails() -> int:
        return int(lab.must("shell", stdin="pgrep -c -x tail || true\n"))

    before = tails()
    with contextlib.ExitStack() as clients:
        for _ in range(FOLLOWERS):
            clients.enter_context(kubectl.running("logs", "-f", "shell1"))
        wait_until(lambda: tails() == before + FOLLOWERS, timeout_s=60, what="every client follows")
        assert "shell1" in kubectl.must("get", "pods", "--request-timeout=10s")
        assert kubectl.must("exec", "shell1", "--", "echo", "prompt") == "prompt\n"
    wait_until(lambda: tails() == before, timeout_s=30, what="what the clients followed has ended with them")


SET = """\
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: applied}
spec:
  replicas: 1
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec: {containers: [{name: web, image: shell}]}
"""


def test_scale_changes_the_kind_that_it_names(kubectl: Kubectl) -> None:
    kubectl.must("apply", "-f", "-", stdin=f"{WEB}---\n{SET}")
    kubectl.must("scale", "replicaset", "applied", "--replicas=2")
    wanted = [kubectl.json("get", kind, "applied")["spec"]["replicas"] for kind in ("deployment", "replicaset")]
    assert wanted == [1, 2]
    kubectl.must("delete", "deployment,replicaset", "applied")


def test_an_eviction_has_the_grace_period_of_its_request(kubectl: Kubectl) -> None:
    kubectl.must(
        "run", "stubborn", "--image=shell", "--command", "--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"
    )
    kubectl.must("wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "stubborn"}}
    body["deleteOptions"] = {"gracePeriodSeconds": 20}
    path = "/api/v1/namespaces/default/pods/stubborn/eviction"
    assert _ask(kubectl, path, kubectl.token, "POST", json.dumps(body).encode()) == 201

    def is_there() -> bool:
        return kubectl.run("get", "pod", "stubborn").returncode == 0

    # The default of a lab, 10 s, would have ended it.
    constantly(is_there, for_s=12, what="the pod may go on")
    wait_until(lambda: not is_there(), timeout_s=60, what="the pod has ended after its grace period")


STUBBORN = """\
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 300
  containers:
  - {name: c, image: shell, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]}
"""
PRE_STOP = STUBBORN.replace("image: shell", "image: shell, lifecycle: {preStop: {sleep: {seconds: 250}}}")


@pytest.mark.parametrize("manifest", [STUBBORN, PRE_STOP], ids=["TERM ignored", "preStop sleeps"])
def test_a_second_delete_with_a_shorter_grace_period_shortens_the_first(kubectl: Kubectl, manifest: str) -> None:
    kubectl.must("apply", "-f", "-", stdin=manifest)
    kubectl.must("wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s")
    kubectl.must("delete", "pod", "stubborn", "--wait=false")

    def pod() -> Any:  # noqa: ANN401 - JSON
        found = kubectl.run("get", "pod", "stubborn", "-o", "json", "--ignore-not-found")
        return json.loads(found.stdout or "{}")

    constantly(lambda: "deletionTimestamp" in pod()["metadata"], for_s=3, what="it is given its grace period")
    restarts = pod()["status"]["containerStatuses"][0]["restartCount"]
    began = time.monotonic()
    kubectl.must("delete", "pod", "stubborn", "--grace-period=2", "--wait=false")
    last = restarts
    while found := pod():
        last = found["status"]["containerStatuses"][0]["restartCount"]
        assert time.monotonic() - began < 30, "it still runs"
    assert time.monotonic() - began >= 1.5, "the second grace period is kept"
    assert last == restarts


@pytest.mark.parametrize("query", ["watch=1&timeoutSeconds=soon", "watch=1&resourceVersion=x", "labelSelector=a=b=c"])
def test_a_query_that_cannot_be_read_is_a_bad_request(kubectl: Kubectl, query: str) -> None:
    assert _ask(kubectl, f"/api/v1/pods?{query}", kubectl.token) == 400


def _ask(kubectl: Kubectl, path: str, token: str, method: str = "GET", body: bytes | None = None) -> int:
    config = json.loads(kubectl.config.read_text())
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    request = urllib.request.Request(f"{kubectl.server}{path}", data=body, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        said = error.read()
        # What is no HTTP is answered before the API sees it.
        if error.code != 400 and json.loads(said)["kind"] != "Status":
            pytest.fail(f"{path}: no Status for {error.code}")
        return error.code


WATCH_LIST = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
"""As client-go's informers begin, from 1.35 on."""
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", REVIEW, 201),
        ("GET", "/apis/metrics.k8s.io/v1beta1/pods", 404),
        ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 404),
        ("GET", "/openapi/v2", 404),
        ("GET", f"/api/v1/pods?{WATCH_LIST}&timeoutSeconds=1", 200),
        ("GET", "/api/v1/namespaces/default/pods/shell1/log?timestamps=true&sinceSeconds=172800&tailLines=10", 200),
    ],
)
def test_the_requests_of_k9s_and_stern_are_answered(kubectl: Kubectl, method: str, path: str, code: int) -> None:
    body = b"{}" if method == "POST" else None
    assert _ask(kubectl, path, kubectl.token, method, body) == code


def test_nothing_gets_in_without_the_token_and_only_its_owner_reads_it(lab: Lab, kubectl: Kubectl) -> None:
    assert _ask(kubectl, "/api/v1/pods", kubectl.token) == 200
    for token in ("", "x", kubectl.token[:-1], kubectl.token + "0", kubectl.token.upper()):
        for path in ("/api/v1/pods", "/version", "/api/v1/namespaces/default/pods/shell1/exec?command=id"):
            assert _ask(kubectl, path, token) == 401
    assert kubectl.config.stat().st_mode & 0o777 == 0o600
    assert all(path.stat().st_mode & 0o077 == 0 for path in kubectl.config.parent.iterdir())
    port = kubectl.server.rpartition(":")[2]
    reached = lab.exec("shell1", "curl", "-sk", "-m", "3", f"https://127.0.0.1:{port}/version")
    assert reached.code == 7, f"a pod reached the API: {reached}"


def test_the_api_server_gives_way_to_the_lab_and_its_verbs(lab: Lab, kubectl: Kubectl) -> None:
    assert kubectl.run("version").returncode == 0
    asked = "for pid in $(pgrep -f '[m] testbed.api '); do ps -o ni= -p $pid; cat /proc/$pid/autogroup; done 2>&1\n"
    niceness, share = lab.must("shell", stdin=asked).strip().splitlines()
    assert niceness.strip() == "10"
    assert share.endswith(" nice 10") or "No such file" in share, "where the kernel shares by session, that counts"


def test_random_requests_and_slow_readers_do_no_harm(lab: Lab, kubectl: Kubectl) -> None:
    _bombard(lab, kubectl, 100)


@pytest.mark.slow
@pytest.mark.timeout(300)  # each request is a TLS connection of its own
def test_five_thousand_random_requests_and_slow_readers_do_no_harm(lab: Lab, kubectl: Kubectl) -> None:
    _bombard(lab, kubectl, 5_000)


def _bombard(lab: Lab, kubectl: Kubectl, count: int) -> None:
    import random

    chance = random.Random(30)
    before = lab.json("get", "pods", "-o", "json")
    words = [*NAMES, "..", "%00", 300 * "x"]
    held = [socket.create_connection(("127.0.0.1", int(kubectl.server.rpartition(":")[2]))) for _ in range(50)]

    def one(number: int) -> int:
        path = "/" + "/".join(chance.choices(words, k=chance.randint(1, 8)))
        method = chance.choice(["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "BREW"])
        body = os.urandom(chance.randint(0, 2000)) if method in ("POST", "PUT", "PATCH") else None
        if method == "HEAD":
            method = "GET"
        return _ask(kubectl, path, kubectl.token if number % 2 else "wrong", method, body)

    try:
        with ThreadPoolExecutor(8) as clients:
            codes = set(clients.map(one, range(count)))
        assert codes <= {200, 400, 401, 404, 405, 415, 422}, f"answers: {sorted(codes)}"
        assert _ask(kubectl, "/api/v1/pods", kubectl.token) == 200
    finally:
        for connection in held:
            connection.close()
    after = lab.json("get", "pods", "-o", "json")
    names = [[pod["metadata"]["uid"] for pod in found["items"]] for found in (before, after)]
    assert names[0] == names[1]


def test_the_official_python_client_lists_watches_changes_and_executes(kubectl: Kubectl) -> None:
    from kubernetes import client, config, watch
    from kubernetes.stream import stream

    api_client = config.new_client_from_config(str(kubectl.config))
    core, apps = client.CoreV1Api(api_client), client.AppsV1Api(api_client)
    listed = core.list_namespaced_pod("default")
    assert {"shell1", "echo2"} <= {pod.metadata.name for pod in listed.items}

    core.create_namespaced_config_map("default", {"metadata": {"name": "py"}, "data": {"a": "1"}, **_map()})
    core.patch_namespaced_config_map("py", "default", {"data": {"b": "2"}})
    assert core.read_namespaced_config_map("py", "default").data == {"a": "1", "b": "2"}
    with pytest.raises(client.ApiException) as caught:
        core.create_namespaced_config_map("default", {"metadata": {"name": "py"}, **_map()})
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "AlreadyExists")

    watcher, seen = watch.Watch(), []
    for event in watcher.stream(core.list_namespaced_config_map, "default", timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if seen[-1][0] == "DELETED":
            watcher.stop()
        elif seen[-1] == ("ADDED", "py"):
            core.delete_namespaced_config_map("py", "default")
    assert seen[-1] == ("DELETED", "py")
    with pytest.raises(client.ApiException) as expired:
        for _ in watch.Watch().stream(core.list_namespaced_pod, "default", resource_version="1", timeout_seconds=5):
            pass
    assert expired.value.status == 410
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", {"metadata": {"name": "later"}, **_map()})
    again = watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=20
    )
    event = next(again)
    again.close()
    assert (event["type"], event["object"].metadata.name) == ("ADDED", "later")
    core.delete_namespaced_config_map("later", "default")

    program = stream(
        core.connect_get_namespaced_pod_exec,
        "shell1",
        "default",
        command=["sh", "-c", "echo from the pod; exit 3"],
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _preload_content=False,
    )
    program.run_forever(timeout=20)
    assert (program.read_stdout(), program.returncode) == ("from the pod\n", 3)
    program.close()
    program.sock.shutdown()
    assert isinstance(core.read_namespaced_pod_log("echo2", "default"), str)
    assert apps.list_deployment_for_all_namespaces().items == []
    api_client.rest_client.pool_manager.clear()
    api_client.close()


def _map() -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "ConfigMap"}


def test_a_change_reaches_a_watcher_at_once_and_the_server_ends_with_its_lab(new_lab: NewLab) -> None:
    with new_lab("two_nodes") as handle:
        own = Lab(handle.name)
        kubectl = Kubectl(own)
        assert own.must("kubeconfig").strip() == str(kubectl.config), "a second one says the same"
        address = ("127.0.0.1", int(kubectl.server.rpartition(":")[2]))
        socket.create_connection(address, timeout=5).close()
        own.must("down")

    def is_gone() -> bool:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            return True
        return False

    wait_until(is_gone, timeout_s=30, what=f"nothing listens on {address} after `down`")
