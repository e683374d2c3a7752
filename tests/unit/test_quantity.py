import pytest
from pydantic_core import PydanticCustomError

from testbed.cluster.quantity import bytes_of
from testbed.cluster.volume import EMPTY_DIR_BYTES, EmptyDir


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("64Mi", 64 << 20),
        ("1Gi", 1 << 30),
        ("0.5Gi", 1 << 29),
        (".5Ki", 512),
        ("1.Ki", 1024),
        ("100M", 100_000_000),
        ("1k", 1000),
        ("1e6", 1_000_000),
        ("2E3", 2000),
        ("2E", 2 * 10**18),
        ("1500m", 2),
        (4096, 4096),
        ("4096", 4096),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(written: int | str, meant: int) -> None:
    assert bytes_of(written) == meant


@pytest.mark.parametrize(
    "written", ["", "Mi", "64 Mi", "64MB", "-1", -1, "1e", "1e1000", "64mi", "one", "0x10", "1,5Gi"]
)
def test_an_invalid_quantity_is_refused(written: int | str) -> None:
    with pytest.raises(PydanticCustomError):
        bytes_of(written)


def test_an_empty_directory_without_a_limit_has_the_default_one() -> None:
    for given in ({}, {"sizeLimit": 0}, {"sizeLimit": "0"}, {"sizeLimit": None}, {"medium": "Memory"}):
        assert EmptyDir.model_validate(given).size == EMPTY_DIR_BYTES
    assert EmptyDir.model_validate({"sizeLimit": "1"}).size == 1
