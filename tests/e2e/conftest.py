"""Labs for the tests. The two clusters of the product come up once for all tests that leave a lab as they found it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab, fresh_name

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: it needs root and a lab."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(autouse=True, scope="session")
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root: brings up labs (want: sudo scripts/test)", pytrace=False)


# Each lab comes as a handle too: that is how the plugin knows which lab a failed test is about.
@pytest.fixture(scope="session")
def nginx_tomcat_handle(_as_root: None, new_lab: NewLab) -> Iterator[LabHandle]:
    """Yield the product's default cluster, for all tests together."""
    with new_lab("nginx_tomcat") as handle:
        yield handle


@pytest.fixture(scope="session")
def nginx_tomcat(nginx_tomcat_handle: LabHandle) -> Lab:
    """Return the product's default cluster. A test leaves it as it was."""
    return Lab(nginx_tomcat_handle.name)


@pytest.fixture(scope="session")
def two_nodes_handle(_as_root: None, new_lab: NewLab) -> Iterator[LabHandle]:
    """Yield the light cluster, for all tests together."""
    with new_lab("two_nodes") as handle:
        yield handle


@pytest.fixture(scope="session")
def two_nodes(two_nodes_handle: LabHandle) -> Lab:
    """Return the light cluster. A test leaves it as it was."""
    return Lab(two_nodes_handle.name)


@pytest.fixture
def own_handle(new_lab: NewLab) -> Iterator[LabHandle]:
    """Yield a light lab of this test alone."""
    with new_lab("two_nodes") as handle:
        yield handle


@pytest.fixture
def own_lab(own_handle: LabHandle) -> Lab:
    """Return a light lab of this test alone, which may do with it what it likes."""
    return Lab(own_handle.name)


@pytest.fixture
def no_lab() -> Iterator[Lab]:
    """Yield the name of a lab that does not run yet; it is taken down if the test brings it up."""
    lab = Lab(fresh_name("new"))
    yield lab
    lab.down()
