"""The files through which other programs learn our subnet."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from agent.errors import EnvironmentMissing
from agent.lease import Subnet
from agent.node.subnet_env import (
    SubnetEnv,
    read_previous_subnet,
    render_docker_opts,
    render_subnet_env,
    write_docker_opts,
    write_subnet_env,
)
from tests.unit.fake_registry import subnet

VECTORS = Path(__file__).parents[1] / "vectors" / "real-flanneld"
ENV = SubnetEnv(IPv4Network("10.0.0.0/16"), subnet("10.0.46.0/24"), overlay_mtu=1472, ip_masq=True)


def test_subnet_env_equals_a_real_flannelds(tmp_path: Path) -> None:
    path = tmp_path / "run" / "flannel" / "subnet.env"
    write_subnet_env(path, ENV)
    assert path.read_bytes() == (VECTORS / "udp-subnet.env").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o755
    assert read_previous_subnet(path) == (subnet("10.0.46.0/24"), None)


def test_dual_stack_adds_two_lines_before_the_mtu() -> None:
    both = Subnet(IPv4Network("10.0.46.0/24"), IPv6Network("fd00:1::/64"))
    text = render_subnet_env(SubnetEnv(ENV.network, both, 1450, False, IPv6Network("fd00::/48")))
    assert text.splitlines()[2:] == [
        "FLANNEL_IPV6_NETWORK=fd00::/48",
        "FLANNEL_IPV6_SUBNET=fd00:1::1/64",
        "FLANNEL_MTU=1450",
        "FLANNEL_IPMASQ=false",
    ]


def test_docker_opts_are_those_of_mk_docker_opts(tmp_path: Path) -> None:
    path = tmp_path / "docker_opts.env"
    write_docker_opts(path, ENV)
    assert path.read_text() == (
        'DOCKER_OPT_BIP="--bip=10.0.46.1/24"\n'
        'DOCKER_OPT_IPMASQ="--ip-masq=false"\n'
        'DOCKER_OPT_MTU="--mtu=1472"\n'
        'DOCKER_OPTS=" --bip=10.0.46.1/24 --ip-masq=false --mtu=1472"\n'
    )
    assert "--ip-masq=true" in render_docker_opts(SubnetEnv(ENV.network, ENV.subnet, 1472, ip_masq=False))


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_subnet_env(tmp_path / "made" / "subnet.env", ENV)
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "made" / "subnet.env").stat().st_mode & 0o777 == 0o644


def test_writing_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("old")
    write_subnet_env(path, ENV)
    assert path.read_text() == render_subnet_env(ENV)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("obstacle", ["symlink", "dangling symlink", "directory", "file as parent"])
@pytest.mark.row("B6")
def test_a_path_that_cannot_be_written_is_named_with_the_cause(tmp_path: Path, obstacle: str) -> None:
    path, victim = tmp_path / "subnet.env", tmp_path / "victim"
    if obstacle == "directory":
        path.mkdir()
    elif obstacle == "file as parent":
        path.write_text("")
        path /= "subnet.env"
    else:
        path.symlink_to(victim)
        if obstacle == "symlink":
            victim.write_text("precious")
    with pytest.raises(EnvironmentMissing, match=str(path)):
        write_subnet_env(path, ENV)
    assert victim.exists() == (obstacle == "symlink")
    assert not victim.exists() or victim.read_text() == "precious"
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


@pytest.mark.parametrize(
    "text",
    [
        "FLANNEL_SUBNET=10.0.46.1/24",
        "FLANNEL_SUBNET=10.0.46.0/24\n",
        "FLANNEL_SUBNET=10.0.46.77/24\r\nFLANNEL_MTU=1472\r\n",
        'export FLANNEL_SUBNET="10.0.46.1/24"\n',
        "FLANNEL_SUBNET='10.0.46.1/24' # ours\n",
        "# by hand\n\nFLANNEL_SUBNET = 10.0.46.1/24\n",
        "FLANNEL_SUBNET=junk,10.0.46.1/24,10.0.99.1\n",
        "FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_SUBNET=10.0.46.1/24\n",
    ],
)
@pytest.mark.row("B38")
def test_what_flannels_reader_takes_is_taken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(text.encode())
    assert read_previous_subnet(path) == (subnet("10.0.46.0/24"), None)


def test_both_families_are_read(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_IPV6_SUBNET=fd00:1::1/64\n")
    assert read_previous_subnet(path)[0] == Subnet(IPv4Network("10.0.46.0/24"), IPv6Network("fd00:1::/64"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"FLANNEL_MTU=1472\n", "no line FLANNEL_SUBNET"),
        (b"FLANNEL_MTU=1472\nFLANNEL_SUB", "line 2"),
        (b"FLANNEL_SUBNET=\n", "line 1: no subnet"),
        (b"FLANNEL_SUBNET=10.0.46.1/33\n", "line 1: no subnet"),
        (b"FLANNEL_SUBNET=10.0.46.1\n", "line 1: no subnet"),
        (b"FLANNEL_SUBNET=255.255.255.255/32\n", "line 1: no subnet"),
        (b"FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_IPV6_SUBNET=fd00:1::/128\n", "line 2: no subnet"),
        (b"\nFLANNEL_SUBNET=10.0.46.1/24,10.0.47.1/24\n", "line 2: 2 subnets"),
        (b"FLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_SUBNET=10.0.47.1/24\n", "line 2: FLANNEL_SUBNET was"),
        (b'FLANNEL_SUBNET="10.0.46.1/24\n', "line 1"),
        (b"FLANNEL_SUBNET=10.0.46.1/24\0\n", "line 1"),
        (b"FLANNEL_SUBNET=fd00::1/64\n", "line 1: no subnet"),
        (b"\xff\xfe\n", "not UTF-8 at offset 0"),
        (b"#" * 10_000_000, "larger than"),
    ],
)
@pytest.mark.row("B38")
def test_a_bad_file_is_no_previous_subnet_and_the_warning_says_where(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(content)
    found, warning = read_previous_subnet(path)
    assert found is None
    assert warning is not None
    assert complaint in warning
    assert str(path) in warning


@pytest.mark.row("B38")
def test_a_missing_file_is_no_previous_subnet(tmp_path: Path) -> None:
    assert read_previous_subnet(tmp_path / "absent") == (None, None)
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("/etc/hostname")
    for path, complaint in ((tmp_path, "not a regular file"), (fifo, "not a regular file"), (link, "symbolic link")):
        found, warning = read_previous_subnet(path)
        assert found is None
        assert complaint in str(warning)
