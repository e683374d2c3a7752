"""Which routes belong to the overlay, and which lead to peers. Pure."""

from collections.abc import Collection, Iterable

from agent.kernel.values import IPAddress, IPNetwork, Route

LAST_RESORT_METRIC = 4278198272
"""Behind every metric that routing daemons and network managers use."""
DROP_METRIC = LAST_RESORT_METRIC - 1


def unreachable_route(network: IPNetwork) -> Route:
    """What remains for the network where no other route is; `cleanup` deletes it.

    Without it, pods' packets for a node that has gone would leave by the default gateway.
    """
    return Route(network, device=None, kind="unreachable", metric=LAST_RESORT_METRIC)


def drop_route(network: IPNetwork, device: str) -> Route:
    """What takes the network's packets while the agent is dead, before they would be refused; see drop_device.py."""
    return Route(network, device, metric=DROP_METRIC)


def own_blackhole(subnet: IPNetwork) -> Route:
    """Drops packets for our own subnet while no other route to it is there (--ip-blackhole-route)."""
    return Route(subnet, device=None, kind="blackhole", metric=LAST_RESORT_METRIC)


def is_subnet_route(route: Route, network: IPNetwork, subnet_len: int, devices: Collection[str]) -> bool:
    """Whether an agent made this route: to a node's subnet, by a gateway on one of `devices`.

    Ours and the real flanneld's have no metric and nobody's protocol; an operator's own have one, or are no subnets.
    """
    return (
        route.kind == "unicast"
        and route.protocol == "boot"
        and route.metric == 0
        and route.gateway is not None
        and route.device in devices
        and route.destination.prefixlen == subnet_len
        and within(route.destination, network)
    )


def within(part: IPNetwork, whole: IPNetwork) -> bool:
    """Whether all of `part` is in `whole`; networks of different families have nothing in common."""
    if part.version == 4 and whole.version == 4:
        return part.subnet_of(whole)
    return part.version == 6 and whole.version == 6 and part.subnet_of(whole)


def overlap(one: IPNetwork, other: IPNetwork | None) -> bool:
    """Whether an address is in both."""
    return other is not None and (within(one, other) or within(other, one))


def direct_device(address: IPAddress, routes: Iterable[Route]) -> str | None:
    """The device by which `address` is reached without a gateway, by the longest prefix; None where there is one."""
    holding = [route for route in routes if address in route.destination and route.kind == "unicast"]
    best = max(holding, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)
    return best.device if best is not None and best.gateway is None else None
