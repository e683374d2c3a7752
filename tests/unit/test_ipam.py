from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.pods.ipam import Ipam, NoFreeAddress, choose_address

SUBNET = IPv4Network("10.0.46.0/24")


def address(last: int) -> IPv4Address:
    return SUBNET.network_address + last


def test_the_first_address_is_the_one_after_the_bridges() -> None:
    assert choose_address(SUBNET, []) == address(2)


def test_the_lowest_free_address_is_chosen() -> None:
    assert choose_address(SUBNET, [address(2), address(3), address(5)]) == address(4)


def test_network_bridge_and_broadcast_are_never_chosen() -> None:
    taken: list[IPv4Address] = []
    for _ in range(2, 255):
        taken.append(choose_address(SUBNET, taken))
    assert taken == [address(last) for last in range(2, 255)]
    with pytest.raises(NoFreeAddress):
        choose_address(SUBNET, taken)


def test_the_smallest_subnet_has_one_pod_address() -> None:
    smallest = IPv4Network("10.0.0.4/30")
    only = choose_address(smallest, [])
    assert only == IPv4Address("10.0.0.6")
    with pytest.raises(NoFreeAddress, match=r"10\.0\.0\.4/30 .*all 1 are taken"):
        choose_address(smallest, [only])


def test_pods_get_addresses_in_the_order_of_asking(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path / "addresses")
    assert [ipam.allocate(pod, SUBNET) for pod in ("nginx", "client", "tomcat")] == [address(2), address(3), address(4)]


def test_a_reservation_outlives_the_program(tmp_path: Path) -> None:
    Ipam(tmp_path).allocate("first", SUBNET)
    Ipam(tmp_path).allocate("second", SUBNET)
    after_a_crash = Ipam(tmp_path)
    assert after_a_crash.allocate("second", SUBNET) == address(3)
    assert after_a_crash.reservations() == {address(2): "first", address(3): "second"}


def test_a_released_address_is_given_to_the_next_pod(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path)
    ipam.allocate("first", SUBNET)
    ipam.allocate("second", SUBNET)
    ipam.release("first")
    assert ipam.allocate("third", SUBNET) == address(2)


def test_releasing_twice_or_a_stranger_is_success(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path)
    ipam.allocate("first", SUBNET)
    ipam.release("first")
    ipam.release("first")
    ipam.release("never-there")
    assert ipam.reservations() == {}


def test_a_node_with_a_new_lease_gives_its_pods_new_addresses(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path)
    ipam.allocate("nginx", SUBNET)
    other = IPv4Network("10.0.90.0/24")
    assert ipam.allocate("nginx", other) == IPv4Address("10.0.90.2")
    assert ipam.reservations() == {IPv4Address("10.0.90.2"): "nginx"}


def test_an_address_that_something_foreign_answers_on_is_passed_over(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path)
    assert ipam.allocate("nginx", SUBNET, answers=lambda asked: asked in (address(2), address(3))) == address(4)
    assert ipam.reservations() == {address(4): "nginx"}


def test_an_address_that_another_process_takes_in_between_is_passed_over(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path)

    def another_is_faster(asked: IPv4Address) -> bool:
        if asked == address(2):
            (tmp_path / str(asked)).write_text("rival\n")
        return False

    assert ipam.allocate("nginx", SUBNET, answers=another_is_faster) == address(3)
    assert ipam.reservations() == {address(2): "rival", address(3): "nginx"}


def test_files_that_are_no_reservation_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ipam = Ipam(tmp_path)
    ipam.allocate("nginx", SUBNET)
    ipam.release("nginx")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
