"""Choosing a backend by the network config."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import cast

import pytest

from agent.backends import BACKENDS, Underlay, make_backend
from agent.errors import InvalidConfig
from agent.kernel.kernel import Kernel
from agent.netconfig.config import parse_network_config

UNDERLAY = Underlay("eth0", IPv4Address("192.168.8.227"), 1500, IPv4Address("192.168.8.227"))
NO_KERNEL = cast(Kernel, None)


@pytest.mark.row("B24")
def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    config = replace(parse_network_config(b'{"Network":"10.0.0.0/16"}'), backend_type="gre")
    with pytest.raises(InvalidConfig, match=r"Backend\.Type: unknown backend \(got 'gre'; want .*udp"):
        make_backend(config, UNDERLAY, NO_KERNEL)


@pytest.mark.row("B24")
def test_flannels_default_backend_is_known() -> None:
    assert parse_network_config(b'{"Network":"10.0.0.0/16"}').backend_type in BACKENDS
