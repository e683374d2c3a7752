from ipaddress import IPv4Address

from testbed.pods.pod_network import INTERFACE_NAME_LENGTH, host_end, pod_mac


def test_a_short_pod_name_is_seen_in_its_link() -> None:
    assert host_end("nginx") == "vethnginx"


def test_long_names_fit_and_do_not_overlap() -> None:
    names = [f"a-pod-with-a-long-name-{number}" for number in range(50)] + ["a.pod", "a-pod", "x" * 63]
    links = {host_end(name) for name in names}
    assert len(links) == len(names)
    assert all(len(link) <= INTERFACE_NAME_LENGTH and "." not in link for link in links)


def test_the_mac_address_follows_from_the_pod_address() -> None:
    assert pod_mac(IPv4Address("10.0.46.2")) == "0a:58:0a:00:2e:02"
