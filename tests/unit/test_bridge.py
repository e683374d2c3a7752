"""The pods' bridge."""

from ipaddress import IPv4Address

from agent.kernel.bridge import bridge_mac


def test_mac_follows_from_the_address_as_docker_has_it() -> None:
    assert bridge_mac(IPv4Address("10.0.46.1")) == "02:42:0a:00:2e:01"
