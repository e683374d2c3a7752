from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.cluster.deployment import Deployment
from testbed.cluster.dns import resolv_conf
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey, Owner, key_of
from testbed.cluster.placement import SeenNode
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import allocate
from testbed.dns.records import records
from testbed.pods.pod_network import host_end
from testbed.services.endpoints import PodFacts, bind
from testbed.services.rules import everywhere, wanted
from testbed.workloads.reconcile import WantedObjects, reconcile
from testbed.workloads.seen import CreatePod

SPEC: dict[str, Any] = {"containers": [{"name": "main", "image": "echo", "ports": [{"containerPort": 8080}]}]}
NAMESPACES = ("default", "shop")


def metadata(namespace: str, **more: object) -> dict[str, Any]:
    return {"name": "web", "namespace": namespace, "labels": {"app": "web"}, **more}


def pod(namespace: str, address: str) -> PodFacts:
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata(namespace), "spec": SPEC}
    return PodFacts(PodManifest.model_validate(document).on_node("node1"), IPv4Address(address), ready=True)


def service(namespace: str) -> Service:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return Service.model_validate(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace), "spec": spec}
    )


def test_a_key_is_shown_with_its_namespace_unless_that_is_default_and_read_back() -> None:
    assert [str(key_of(text)) for text in ("web", "default/web", "shop/web")] == ["web", "web", "shop/web"]
    assert key_of("shop/web") == ObjectKey("shop", "web") != key_of("web")


def test_file_and_device_names_of_two_keys_differ() -> None:
    # A name of Kubernetes has no underscore, so no pod of the default namespace is called so.
    assert [key_of(text).file_name for text in ("web", "shop/web")] == ["web", "shop_web"]
    keys = [ObjectKey(namespace, "a-pod-with-a-long-name") for namespace in NAMESPACES]
    assert len({host_end(key.file_name) for key in keys}) == 2


def test_services_of_one_name_have_addresses_endpoints_chains_and_names_of_their_own() -> None:
    numbered = allocate([service(namespace) for namespace in NAMESPACES])
    pods = [pod("default", "10.0.46.2"), pod("shop", "10.0.46.3")]
    bound = bind(numbered.values(), pods)
    assert len({one.cluster_ip for one in bound}) == 2
    assert [[str(end.address) for end in one.endpoints] for one in bound] == [["10.0.46.2"], ["10.0.46.3"]]
    table = wanted("node1", everywhere(bound), (), IPv4Network("10.0.0.0/16"))
    assert {"service-web-tcp-80", "service-shop_web-tcp-80"} <= table.chains.keys()
    names = {one.name: one.data for one in records(numbered.values(), pods) if one.type == "A"}
    for namespace in NAMESPACES:
        own = numbered[ObjectKey(namespace, "web")].spec.cluster_ip
        assert names[f"web.{namespace}.svc.cluster.local"] == own
    assert names["10-0-46-3.shop.pod.cluster.local"] == "10.0.46.3"


def test_a_pod_looks_first_for_services_of_its_own_namespace() -> None:
    assert resolv_conf("shop").splitlines()[0] == "search shop.svc.cluster.local svc.cluster.local cluster.local"


def test_deployments_of_one_name_get_pods_of_their_own() -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": SPEC}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    both = [
        Deployment.model_validate(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(namespace), "spec": spec}
        )
        for namespace in NAMESPACES
    ]
    wanted = WantedObjects({one.key: one for one in both}, {}, {})
    decision = reconcile(wanted, [], [SeenNode("node1")], "2026-01-01T00:00:05Z")
    sets = [ObjectKey(namespace, f"web-{both[0].spec.template.hash}") for namespace in NAMESPACES]
    assert list(decision.sets) == sets
    assert decision.actions == tuple(CreatePod(Owner("ReplicaSet", key), "node1") for key in sets)
