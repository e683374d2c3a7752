"""What is said when there can be no TUN device."""

from pathlib import Path

import pytest

from agent.datapath import tun
from agent.errors import EnvironmentMissing


def test_missing_driver_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tun, "CLONE_DEVICE", str(tmp_path / "tun"))
    with pytest.raises(EnvironmentMissing, match=r"No such file.*modprobe tun"):
        tun.open_tun("flannel%d")


def test_name_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(EnvironmentMissing, match="want at most 15 bytes"):
        tun.open_tun("flannel-of-node-1")
