"""`bridge` and `cleanup`, as far as they decide anything without touching the kernel."""

import os
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from agent.commands import read_bridge_values
from agent.errors import EnvironmentMissing

VECTORS = Path(__file__).parents[1] / "vectors" / "real-flanneld"


@pytest.mark.parametrize("name", ["udp-subnet.env", "vxlan-subnet.env", "host-gw-subnet.env"])
def test_the_bridge_values_of_a_real_flanneld_are_read(name: str) -> None:
    bip, mtu = read_bridge_values(VECTORS / name)
    assert bip == IPv4Interface("10.0.46.1/24")
    assert mtu in (1472, 1450, 1500)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("FLANNEL_SUBNET=10.0.46.1\nFLANNEL_MTU=1472\n", "no FLANNEL_SUBNET (got '10.0.46.1'"),
        ("FLANNEL_SUBNET=10.0.46.1/24\n", "no FLANNEL_MTU (got nothing"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=67\n", "no FLANNEL_MTU (got '67'"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=" + "9" * 5000 + "\n", "no FLANNEL_MTU (got '9999"),
        ("FLANNEL_SUBNET=10.0.46.1/24\0\nFLANNEL_MTU=1472\n", "line 1 is not NAME=value"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_SUBNET=10.0.47.1/24\n", "line 2: FLANNEL_SUBNET was"),
        ("#" * 100_000, "is larger than"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=\u0664\u0664\u0664\n", "no FLANNEL_MTU"),
    ],
)
@pytest.mark.row("B38")
def test_an_incomplete_subnet_env_is_reported_with_what_is_missing(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "subnet.env"
    file.write_text(text)
    with pytest.raises(EnvironmentMissing) as caught:
        read_bridge_values(file)
    assert complaint in str(caught.value)


def test_a_missing_subnet_env_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match=r"--subnet-file: No such file or directory \(got .*/subnet.env;"):
        read_bridge_values(tmp_path / "subnet.env")


@pytest.mark.row("B38")
def test_each_missing_key_of_a_subnet_env_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_text("FLANNEL_IPMASQ=true\n")
    with pytest.raises(EnvironmentMissing) as caught:
        read_bridge_values(tmp_path / "subnet.env")
    assert [line.partition(f"{tmp_path}/subnet.env: ")[2][:18] for line in str(caught.value).splitlines()] == [
        "no FLANNEL_SUBNET ",
        "no FLANNEL_MTU (go",
    ]


@pytest.mark.row("B38")
@pytest.mark.parametrize("text", ["export FLANNEL_SUBNET=\"10.0.46.1/24\"\r\nFLANNEL_MTU='1472'\r\n"])
def test_the_bridge_reads_quotes_export_and_crlf(tmp_path: Path, text: str) -> None:
    (tmp_path / "subnet.env").write_bytes(text.encode())
    assert read_bridge_values(tmp_path / "subnet.env") == (IPv4Interface("10.0.46.1/24"), 1472)


@pytest.mark.row("B38")
def test_a_subnet_env_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(EnvironmentMissing, match="is not a regular file"):
            read_bridge_values(path)
