"""The etcd programs that the agent is tried with: the one on PATH, and those that TESTBED_ETCDS names.

TESTBED_ETCDS=/opt/etcd-3.5.1/etcd:/opt/etcd-3.5.30/etcd scripts/test tests/netns/test_other_etcds.py
"""

import pytest

from tests.rows import OTHER_ETCDS

PROGRAMS = [
    pytest.param("etcd", id="etcd", marks=pytest.mark.row("C44")),
    *(pytest.param(path, id=version, marks=pytest.mark.row("C45")) for version, path in OTHER_ETCDS.items()),
]
"""Cases for a test's parameter `program`; those beside PATH's are named by their versions."""
