"""What must be there before the agent makes anything: told all at once, with the cause."""

import os
from pathlib import Path

import pytest

from agent.errors import EnvironmentMissing
from agent.options import preconditions
from agent.options.command_line import parse_options


@pytest.fixture(autouse=True)
def fit_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulate a machine that meets every precondition, whoever runs the tests."""
    (tmp_path / "tun").touch()
    monkeypatch.setattr(preconditions, "TUN", tmp_path / "tun")
    monkeypatch.setattr(preconditions, "effective_capabilities", lambda: 1 << preconditions.CAP_NET_ADMIN)
    (tmp_path / "nft").touch()
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setattr(preconditions, "NFT_PATH", str(tmp_path))


def lacking(*flags: str) -> list[str]:
    try:
        preconditions.check_machine(parse_options(flags, {}))
    except EnvironmentMissing as error:
        return str(error).splitlines()
    return []


def test_a_fit_machine_misses_nothing(tmp_path: Path) -> None:
    assert lacking(f"--subnet-file={tmp_path}/new/subnet.env") == []
    (tmp_path / "subnet.env").touch()
    assert lacking(f"--subnet-file={tmp_path}/subnet.env") == []


@pytest.mark.row("B8")
def test_everything_that_is_missing_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preconditions, "effective_capabilities", lambda: 0)
    monkeypatch.setattr(preconditions, "NFT_PATH", str(tmp_path / "none"))
    rights, nft, place = lacking(f"--subnet-file={tmp_path}")
    assert rights.startswith("machine: no right to change the network")
    assert nft.startswith("machine: the program nft is missing")
    assert place.startswith("--subnet-file: is a directory")


@pytest.mark.row("B8")
def test_without_a_tun_driver_the_udp_backend_names_the_module_to_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preconditions.check_tun()
    monkeypatch.setattr(preconditions, "TUN", tmp_path / "none")
    with pytest.raises(
        EnvironmentMissing, match=r"machine: cannot open .*/none \(got No such file or directory;.*modprobe"
    ):
        preconditions.check_tun()


def test_without_rules_no_nft_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preconditions, "NFT_PATH", str(tmp_path / "none"))
    assert lacking("--iptables-forward-rules=false", f"--subnet-file={tmp_path}/subnet.env") == []


@pytest.mark.row("B6")
def test_a_place_that_is_no_plain_file_is_refused_with_its_kind(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("subnet.env")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for name, kind in {
        "link": "is a symbolic link",
        "fifo": "is a special file",
        "file/subnet.env": "is below something that is not a directory",
        "x/../subnet.env": "contains `..`",
    }.items():
        (line,) = lacking(f"--docker-opts-file={tmp_path}/{name}", f"--subnet-file={tmp_path}/subnet.env")
        assert line.startswith(f"--docker-opts-file: {kind} (got {tmp_path}/{name};")
