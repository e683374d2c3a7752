"""Detect that a running agent's underlay has changed since its start, and distinguish a gap from a change. No I/O."""

import logging
import math
from collections.abc import Callable, Collection

from agent.backends.base import Underlay
from agent.errors import AgentError
from agent.kernel.values import IPAddress

log = logging.getLogger(__name__)

ADDRESS_GONE_S = 1.0
"""How long to wait for a lost address before another that was beside it takes its place.

`ifdown; ifup` and network managers that reapply a configuration remove an address and add it a moment later. There is
no wait if a new address appeared in its place: the machine has moved.
"""


class UnderlayWatch:
    """Detects changes: call `look` after every change of links, addresses and routes, and at `due_at_s`."""

    def __init__(
        self,
        started_with: Underlay,
        choose: Callable[[Underlay], Underlay],
        addresses: Callable[[], Collection[IPAddress]],
    ) -> None:
        """`choose` returns the underlay to use now, given the current one; `addresses` returns all of the machine's.

        Both may raise AgentError or OSError; the constructor calls only `addresses`.
        """
        self.started_with = started_with
        self._choose = choose
        self._addresses = addresses
        self._beside = frozenset(addresses())
        """The machine's addresses when it last had ours."""
        self._gone_since_s: float | None = None
        self.due_at_s = math.inf
        """When to look again even without a change."""

    def look(self, now_s: float) -> Underlay | None:
        """Return the underlay of a restart if it is time for one; None if nothing changed, or it may change back."""
        self.due_at_s = math.inf
        try:
            found = self._choose(self.started_with)
            if found == self.started_with:
                self._gone_since_s, self._beside = None, frozenset(self._addresses())
                return None
        except (AgentError, OSError) as error:
            # An unplugged cable, an address about to be replaced: it may be back soon. Reported once, since every link
            # and route of a pod is a reason to look again.
            if self._gone_since_s is None:
                self._gone_since_s = now_s
                log.warning("underlay: %s", error)
            return None
        ours, new = _addresses(self.started_with), _addresses(found)
        if not ours - new or not new - ours <= self._beside:
            # The same on another interface or with another MTU, or a new address in place of ours.
            return found
        if self._gone_since_s is None:
            self._gone_since_s = now_s
            lost = " and ".join(sorted(map(str, ours - new)))
            log.warning("underlay: %s lost %s; waiting %g s", self.started_with.interface, lost, ADDRESS_GONE_S)
        if now_s < self._gone_since_s + ADDRESS_GONE_S:
            self.due_at_s = self._gone_since_s + ADDRESS_GONE_S
            return None
        return found


def _addresses(underlay: Underlay) -> set[IPAddress | None]:
    return {underlay.address, underlay.ipv6_address}
