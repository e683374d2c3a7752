"""Sections of README and docs/ whose commands build on each other: typed in order, each says what the page shows."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.documents import ROOT, TYPED_IN_ORDER, blocks
from tests.e2e.pages import missing
from tests.e2e.typed import Typed, commands_of, files_of, type_in

pytestmark = pytest.mark.slow
POD_NAME = re.compile(r"-[0-9a-f]{8}(-[a-z0-9]{5})?\b")
"""What a Deployment adds to its name, for a ReplicaSet and for a pod."""
IN_THE_AGENTS_PLACE = "$(sudo testbed get nodes -o json | grep -o '\"pid\": [0-9]*' | head -1 | grep -o '[0-9]*$')"
INSTEAD: Mapping[str, str] = {
    "kill -9 46": f"kill -9 {IN_THE_AGENTS_PLACE}",
    "sudo testbed up crash.yaml": "sudo testbed up crash.yaml --timeout 20",
}
"""What a reader types instead: numbers differ from lab to lab, and nobody waits a minute and a half for a mistake."""
BEFORE: Mapping[tuple[str, str], str] = {
    ("docs/trace.md", "When it gets lost"): (
        "sudo testbed exec node1 -- nft 'add table ip secret;"
        " add chain ip secret fw { type filter hook forward priority 0; };"
        " add rule ip secret fw tcp dport 8080 drop'"
    ),
    ("docs/troubleshooting.md", "A pod is in CrashLoopBackOff"): "sudo testbed up crash.yaml --timeout 20",
}
"""(page, heading) → what has happened before its sessions."""
FILES: Mapping[str, str] = {
    "bad.yaml": """apiVersion: apps/v1
kind: Deployment
metadata: {name: bad}
spec:
  replicas: three
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: wbe}}
    spec:
      nodeName: node9
      containers: [{name: a, image: ngnix, volumeMounts: [{name: site, mountPath: /a}]}]
""",
    "crash.yaml": """apiVersion: testbed/v1
kind: Cluster
metadata: {name: crash}
network: {Network: 10.0.0.0/16, Backend: {Type: udp}}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes: {node1: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: typo}
spec: {containers: [{name: main, image: shell, command: [slep, "9"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec: {containers: [{name: main, image: shell, command: [sh, -c, "echo cannot open /data/config; exit 3"]}]}
""",
}
"""Files that a page talks about and does not show."""


def sessions_of(page: str, section: str) -> list[Typed]:
    """Return all that is to be typed, in order."""
    found: list[Typed] = []
    told = set[str]()
    for block in blocks(ROOT / page):
        if block.mark is None and section in ("", block.section):
            before = None if block.heading in told else BEFORE.get((page, block.heading))
            told.add(block.heading)
            found += [Typed(before, ())] if before else []
            found += [Typed(_as_typed(one.command), one.shown) for one in commands_of(block)]
    return found


def _as_typed(command: str) -> str:
    for shown, typed in INSTEAD.items():
        command = command.replace(shown, typed)
    return command


@pytest.fixture
def directory() -> Iterator[Path]:
    """Yield one that an ordinary user may read too, which pytest's are not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize(
    ("page", "section", "cluster"),
    [(page, section, cluster) for (page, section), cluster in TYPED_IN_ORDER.items()],
    ids=[f"{page} {section}".strip() for page, section in TYPED_IN_ORDER],
)
def test_the_typed_commands_print_what_the_page_shows(page: str, section: str, cluster: str, directory: Path) -> None:
    for name, text in {**FILES, **files_of(page)}.items():
        (directory / name).write_text(text)
    typed = sessions_of(page, section)
    assert typed
    for one in type_in(typed, directory, cluster):
        said = POD_NAME.sub("-0", one.said)
        shown = [POD_NAME.sub("-0", line) for line in one.shown]
        assert missing(shown, said) == [], f"{one.command}\n{one.said}"
