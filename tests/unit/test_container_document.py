"""The files that a container is started with."""

import json
from pathlib import Path

from testbed.cluster.images import program
from testbed.cluster.manifest import PodManifest
from testbed.pods.container_document import ContainerPlace, run_document


def hosts(**spec: object) -> list[str]:
    pod = PodManifest.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web-0"},
            "spec": {"containers": [{"name": "c", "image": "shell"}], **spec},
        }
    )
    (container,) = pod.spec.containers
    place = ContainerPlace(1, 2, "web-0", "10.0.46.2", ipv6_address="fd00:a::2")
    document = run_document(pod, container, program(container), place, Path("/run/pod"), Path("/run/log"))
    return str(json.loads(document)["files"]["/etc/hosts"]).splitlines()[2:]


def test_a_pod_has_its_name_in_hosts_for_both_addresses() -> None:
    assert hosts() == ["10.0.46.2 web-0", "fd00:a::2 web-0"]


def test_with_a_subdomain_both_addresses_have_the_full_name_too() -> None:
    names = "web-0.all.default.svc.cluster.local web-0"
    assert hosts(subdomain="all") == [f"10.0.46.2 {names}", f"fd00:a::2 {names}"]


def test_host_aliases_come_last() -> None:
    aliases = [{"ip": "10.9.9.9", "hostnames": ["db.example", "db"]}]
    assert hosts(hostAliases=aliases)[-1] == "10.9.9.9 db.example db"
