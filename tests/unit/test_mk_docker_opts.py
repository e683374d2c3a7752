"""The program that stands in for flannel's mk-docker-opts.sh; its cases are those of flannel's TestMkDockerOpts."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.node.mk_docker_opts import main, routed_elsewhere
from agent.node.subnet_env import SubnetEnv, read_env, render_docker_opts
from tests.pcap import REAL_FLANNELD

BIP, MASQ, MTU = "--bip=10.0.46.1/24", "--ip-masq=true", "--mtu=1472"
SINGLE = f'DOCKER_OPT_BIP="{BIP}"\nDOCKER_OPT_IPMASQ="{MASQ}"\nDOCKER_OPT_MTU="{MTU}"\n'
ALL = f' {BIP} {MASQ} {MTU}"\n'
REAL = REAL_FLANNELD / "udp-subnet.env"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), f'{SINGLE}DOCKER_OPTS="{ALL}'),
        (("-i", "-c"), f'{SINGLE}DOCKER_OPTS="{ALL}'),
        (("-i",), SINGLE),
        (("-c",), f'DOCKER_OPTS="{ALL}'),
        (("-c", "-k", "OPTIONS"), f'OPTIONS="{ALL}'),
        (("-c", "-m"), f'DOCKER_OPTS=" {BIP} {MTU}"\n'),
    ],
)
def test_the_forms_are_the_scripts(flags: tuple[str, ...], text: str, tmp_path: Path) -> None:
    env = tmp_path / "subnet.env"
    env.write_text(REAL.read_text().replace("IPMASQ=true", "IPMASQ=false"))
    assert main(["-f", str(env), "-d", str(tmp_path / "docker.env"), *flags]) == 0
    assert (tmp_path / "docker.env").read_text() == text


def test_the_agent_writes_the_same_by_itself(tmp_path: Path) -> None:
    found = read_env(REAL)
    assert isinstance(found, SubnetEnv)
    assert main(["-f", str(REAL), "-d", str(tmp_path / "docker.env")]) == 0
    assert (tmp_path / "docker.env").read_text() == render_docker_opts(found)


def test_a_missing_subnet_env_is_an_error_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", str(tmp_path / "none"), "-d", str(tmp_path / "docker.env")]) == 3
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"
    assert not (tmp_path / "docker.env").exists()


@pytest.mark.parametrize(
    ("gateway", "mask", "elsewhere"),
    [("0A08A8C0", "00FFFFFF", True), ("00000000", "00FFFFFF", False), ("0A08A8C0", "0000FFFF", False)],
)
def test_a_route_by_way_of_a_gateway_is_seen(gateway: str, mask: str, elsewhere: bool) -> None:
    heading = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"
    table = f"{heading}\neth0 002E000A {gateway} 3 0 0 0 {mask} 0 0 0\n"
    assert routed_elsewhere(IPv4Network("10.0.46.0/24"), table) == elsewhere
