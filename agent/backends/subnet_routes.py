"""Which routes belong to the overlay, and which lead to peers. Pure."""

from collections.abc import Collection, Iterable

from agent.kernel.values import IPAddress, IPNetwork, Route

LAST_RESORT_METRIC = 4278198272
"""Lower priority than every metric that routing daemons and network managers use."""
DROP_METRIC = LAST_RESORT_METRIC - 1


def unreachable_route(network: IPNetwork) -> Route:
    """Return the route that remains for the network when no other does; `cleanup` deletes it.

    Without it, packets for a node that is gone would leave by the default gateway.
    """
    return Route(network, device=None, kind="unreachable", metric=LAST_RESORT_METRIC)


def drop_route(network: IPNetwork, device: str) -> Route:
    """Return the route that drops the network's packets while the agent is dead, instead of refusing them; see
    drop_device.py.
    """
    return Route(network, device, metric=DROP_METRIC)


def own_blackhole(subnet: IPNetwork) -> Route:
    """Return a route that drops packets for our own subnet while it has no other route (--ip-blackhole-route)."""
    return Route(subnet, device=None, kind="blackhole", metric=LAST_RESORT_METRIC)


def is_subnet_route(route: Route, network: IPNetwork, subnet_len: int, devices: Collection[str]) -> bool:
    """Report whether an agent made this route: to a node's subnet, via a gateway on one of `devices`.

    Ours and the real flanneld's have neither metric nor protocol; an operator's have one, or their destination is no
    subnet.
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
    """Report whether `whole` contains all of `part`; networks of different families share nothing."""
    if part.version == 4 and whole.version == 4:
        return part.subnet_of(whole)
    return part.version == 6 and whole.version == 6 and part.subnet_of(whole)


def overlap(one: IPNetwork, other: IPNetwork | None) -> bool:
    """Report whether two networks share an address."""
    return other is not None and (within(one, other) or within(other, one))


def direct_device(address: IPAddress, routes: Iterable[Route]) -> str | None:
    """Return the device that reaches `address` without a gateway, by the longest prefix; None if there is none."""
    holding = [route for route in routes if address in route.destination and route.kind == "unicast"]
    best = max(holding, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)
    return best.device if best is not None and best.gateway is None else None
