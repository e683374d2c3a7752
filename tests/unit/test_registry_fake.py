"""The fake behaves as the registry on etcd does."""

from tests.unit.fake_registry import FakeRegistry, check_registry


def test_fake_keeps_what_every_registry_keeps() -> None:
    check_registry(FakeRegistry())
