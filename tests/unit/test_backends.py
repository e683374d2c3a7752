"""Choosing a backend by the network config."""

from dataclasses import replace

import pytest

from agent.assembly import refuse_unknown_backend
from agent.backends import BACKENDS
from agent.errors import InvalidConfig
from agent.netconfig.config import parse_network_config


@pytest.mark.row("B24")
def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    config = replace(parse_network_config(b'{"Network":"10.0.0.0/16"}'), backend_type="gre")
    with pytest.raises(InvalidConfig, match=r"Backend\.Type: unknown backend \(got 'gre'; want .*udp"):
        refuse_unknown_backend(config)


@pytest.mark.row("B24")
def test_flannels_default_backend_is_known() -> None:
    assert parse_network_config(b'{"Network":"10.0.0.0/16"}').backend_type in BACKENDS
