"""Which of the pods that were started are not ready yet; asks each no more often than it is worth."""

from collections.abc import Iterable

from testbed.pods.pod import Pod


class UnreadyPods:
    """Looks at those that were not ready at the last look, and at all of them before it says that all are."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._pods = tuple(pods)
        self._waiting = self._pods

    def reasons(self) -> list[str]:
        """What each of them lacks; empty when every pod is ready."""
        return self._look() or self._look(anew=True)

    def _look(self, *, anew: bool = False) -> list[str]:
        statuses = [(pod, pod.status()) for pod in (self._pods if anew else self._waiting)]
        # One that crashes again and again is ready for a moment each time.
        self._waiting = tuple(pod for pod, status in statuses if not status.ready or status.restarts)
        return [f"{status.name}: {status.why_not_ready}" for _, status in statuses if not status.ready]
