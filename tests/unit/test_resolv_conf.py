"""What a pod's dnsPolicy and dnsConfig make of its /etc/resolv.conf."""

import pytest
from pydantic import ValidationError

from testbed.cluster.dns import resolv_conf_of
from testbed.cluster.manifest import PodManifest

USUAL = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
CONFIG = {"nameservers": ["10.96.0.99"], "searches": ["ns1.example"], "options": [{"name": "ndots", "value": "2"}]}


def lines(*, dns: bool = True, **spec: object) -> str:
    containers = [{"name": "c", "image": "shell"}]
    given = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}
    return resolv_conf_of(PodManifest.model_validate(given), dns=dns)


@pytest.mark.parametrize("policy", ["ClusterFirst", "ClusterFirstWithHostNet"])
def test_the_cluster_comes_first(policy: str) -> None:
    assert lines(dnsPolicy=policy) == USUAL
    assert lines(dnsPolicy=policy, dns=False) == ""


def test_a_config_adds_to_it_and_its_options_win() -> None:
    options = [{"name": "ndots", "value": "2"}, {"name": "edns0"}]
    assert lines(dnsConfig={**CONFIG, "options": options}) == (
        "search default.svc.cluster.local svc.cluster.local cluster.local ns1.example\n"
        "nameserver 10.96.0.10\nnameserver 10.96.0.99\noptions ndots:2 edns0\n"
    )


def test_without_the_cluster_the_config_is_all() -> None:
    assert lines(dnsPolicy="None", dnsConfig=CONFIG) == ("search ns1.example\nnameserver 10.96.0.99\noptions ndots:2\n")
    assert lines(dnsPolicy="Default") == ""


@pytest.mark.parametrize("config", [{}, {"searches": ["a b"]}, {"nameservers": ["x"]}, {"options": [{"name": "a\nb"}]}])
def test_nonsense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        lines(dnsPolicy="None", dnsConfig=config)
