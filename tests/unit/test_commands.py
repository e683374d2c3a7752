"""`bridge` and `cleanup`, as far as they decide anything without touching the kernel."""

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
        ("", "no FLANNEL_SUBNET (got ''"),
        ("FLANNEL_SUBNET=10.0.46.1\nFLANNEL_MTU=1472\n", "no FLANNEL_SUBNET (got '10.0.46.1'"),
        ("FLANNEL_SUBNET=10.0.46.1/24\n", "no FLANNEL_MTU (got ''"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=67\n", "no FLANNEL_MTU (got '67'"),
        ("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=\u0664\u0664\u0664\n", "no FLANNEL_MTU"),
    ],
)
def test_an_incomplete_subnet_env_says_what_is_missing(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "subnet.env"
    file.write_text(text)
    with pytest.raises(EnvironmentMissing) as caught:
        read_bridge_values(file)
    assert complaint in str(caught.value)


def test_a_missing_subnet_env_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match=r"--subnet-file: No such file or directory \(got .*/subnet.env;"):
        read_bridge_values(tmp_path / "subnet.env")
