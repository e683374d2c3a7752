"""Notices that a running agent's underlay is no longer what it started with, and tells a gap from an end. No I/O."""

import logging
import math
from collections.abc import Callable, Collection

from agent.backends import Underlay
from agent.errors import AgentError
from agent.kernel.values import IPAddress

log = logging.getLogger(__name__)

ADDRESS_GONE_S = 1.0
"""How long an address that is gone is waited for before one that was beside it takes its place. `ifdown; ifup` and
network managers that apply a configuration again remove an address and add it a moment later. One that came in its
place is not waited with: the machine has another address."""


class UnderlayWatch:
    """`look` after every change of links, addresses and routes, and at `due_at_s`."""

    def __init__(
        self,
        started_with: Underlay,
        choose: Callable[[Underlay], Underlay],
        addresses: Callable[[], Collection[IPAddress]],
    ) -> None:
        """`choose` returns what to use now, given what we have; `addresses` all that the machine has.

        Both may raise AgentError or OSError; here, only `addresses` is called.
        """
        self.started_with = started_with
        self._choose = choose
        self._addresses = addresses
        self._beside = frozenset(addresses())
        """What the machine had when it last had ours."""
        self._gone_since_s: float | None = None
        self.due_at_s = math.inf
        """When to look again without any change."""

    def look(self, now_s: float) -> Underlay | None:
        """Return what a new start would use if it is time for one; None if all is as it was, or may be so again."""
        self.due_at_s = math.inf
        try:
            found = self._choose(self.started_with)
            if found == self.started_with:
                self._gone_since_s, self._beside = None, frozenset(self._addresses())
                return None
        except (AgentError, OSError) as error:
            # A cable that is out, an address that is about to be replaced: it may be there again soon.
            log.warning("underlay: %s", error)
            self._gone_since_s = now_s if self._gone_since_s is None else self._gone_since_s
            return None
        ours, new = _addresses(self.started_with), _addresses(found)
        if not ours - new or not new - ours <= self._beside:
            # The same on another interface or with another MTU, or an address that came in place of ours.
            return found
        if self._gone_since_s is None:
            self._gone_since_s = now_s
            lost = " and ".join(sorted(map(str, ours - new)))
            log.warning("underlay: %s has lost %s; waiting %g s", self.started_with.interface, lost, ADDRESS_GONE_S)
        if now_s < self._gone_since_s + ADDRESS_GONE_S:
            self.due_at_s = self._gone_since_s + ADDRESS_GONE_S
            return None
        return found


def _addresses(underlay: Underlay) -> set[IPAddress | None]:
    return {underlay.address, underlay.ipv6_address}
