"""These tests cannot reach the host's own network."""

import os

import pytest

from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from tests.netns.conftest import NamespaceMaker

pytestmark = pytest.mark.root


def test_the_tests_own_namespace_has_nothing_but_loopback() -> None:
    with Kernel(SilentJournal()) as kernel:
        assert [link.name for link in kernel.links() if link.up] == ["lo"]
        assert kernel.routes() == frozenset()


def test_a_started_process_is_in_its_namespace_at_once(namespaces: NamespaceMaker) -> None:
    node = namespaces("node")
    for _ in range(20):
        assert os.path.samefile(f"/proc/{node.popen(['sleep', '60']).pid}/ns/net", node.path)
