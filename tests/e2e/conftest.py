"""Labs for the tests. The two clusters of the product come up once for all tests that leave a lab as they found it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, fresh_name, lab_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs root and a lab."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(autouse=True, scope="session")
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: brings up labs")


@pytest.fixture(scope="session")
def nginx_tomcat(_as_root: None) -> Iterator[Lab]:
    """The product's default cluster. A test leaves it as it was."""
    with lab_of("nginx_tomcat") as lab:
        yield lab


@pytest.fixture(scope="session")
def two_nodes(_as_root: None) -> Iterator[Lab]:
    """The light cluster. A test leaves it as it was."""
    with lab_of("two_nodes") as lab:
        yield lab


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A light lab of this test alone, which may do with it what it likes."""
    with lab_of("two_nodes") as lab:
        yield lab


@pytest.fixture
def no_lab() -> Iterator[Lab]:
    """The name of a lab that does not run yet; it is taken down if the test brings it up."""
    lab = Lab(fresh_name("new"))
    yield lab
    lab.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show a failed test's lab as it is then."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):  # type: ignore[attr-defined]
        for name, lab in item.funcargs.items():
            if isinstance(lab, Lab):
                for words in (("status",), ("events",), ("logs", "--tail", "20", "lab")):
                    report.sections.append((f"{name}: testbed {' '.join(words)}", str(lab.testbed(*words))))  # type: ignore[attr-defined]
    return report
