"""Two nodes with one public address: the second asks whether the first lives, and the first answers with its name.

flannel identifies a node by its public address, so the second would take the first one's subnet for its own. A node
that finds an unknown lease with its address writes a claim below the leases, where the holder's watch sees it, and
waits a moment for an answer. No answer means an earlier run of ours, or a real flanneld. A claim lives for seconds;
without a question, etcd contains none.
"""

import logging
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address

from agent.daemon.log import LogLimit
from agent.daemon.pacing import Clock
from agent.errors import AddressTaken, RegistryDenied
from agent.etcd.registry import Registry
from agent.lease import Claim, Lease

log = logging.getLogger(__name__)

ANSWER_S = 1.5
"""How long to wait for an answer; the holder's watch delivers the question within milliseconds."""
POLL_S = 0.05
CLAIM_TTL_S = 10
WARNED_S = 30.0
"""How long the holder's warning stays after the last question; a refused node asks again every ten seconds."""


class AddressClaims:
    """Asks and answers for one node; `see` and `warnings` may be called from any thread."""

    def __init__(self, registry: Registry, public_ip: IPv4Address, node: str, clock: Clock) -> None:
        """Without a name for the node, nothing is asked or answered."""
        self._registry = registry
        self._public_ip = public_ip
        self._node = node
        self._clock = clock
        self._log_limit = LogLimit(clock)
        self._last: tuple[str, float] | None = None
        """The last node that asked, and when."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warning for an operator: another node has our address too."""
        last = self._last
        if last is None or self._clock.now() - last[1] > WARNED_S:
            return ()
        return (f"{last[0]} has our public address {self._public_ip} too; it gets no subnet while we run",)

    def ask(self, lease: Lease) -> None:
        """Raise AddressTaken if another live node holds `lease`, which has our address. Raises RegistryError."""
        if not self._node or lease.is_reservation:
            return
        claim = Claim(self._public_ip, self._node)
        try:
            etcd_lease_id = self._registry.put_claim(claim, CLAIM_TTL_S)
        except RegistryDenied as error:
            log.warning("cannot check whether another node has our address %s: %s", self._public_ip, error)
            return
        try:
            holder = self._await_answer(claim)
        finally:
            self._registry.drop_claim(etcd_lease_id)
        if holder is not None:
            raise AddressTaken(
                f"public address: two nodes have it (got {self._public_ip} on {self._node}, and on {holder}, which has"
                f" {lease.subnet}; want another for one of them: --iface or --public-ip)"
            )

    def see(self, claims: Iterable[Claim]) -> None:
        """Answer questions about our address. Raises RegistryError."""
        for claim in claims:
            if claim.public_ip != self._public_ip or claim.holder or claim.node == self._node or not self._node:
                continue
            self._registry.answer_claim(claim, self._node)
            self._last = claim.node, self._clock.now()
            if self._log_limit.allows():
                log.warning("%s", self.warnings[0])

    def _await_answer(self, claim: Claim) -> str | None:
        deadline, never = self._clock.now() + ANSWER_S, threading.Event()
        while (holder := self._registry.claim_holder(claim)) is None and self._clock.now() < deadline:
            self._clock.wait(never, POLL_S)
        return holder
