"""The shapes of pods, made again only after a change: a thousand are asked for several times a second."""

from weakref import WeakKeyDictionary

from testbed.control.wire import WrittenOnce
from testbed.pods.pod import Pod
from testbed.pods.pod_state import PodStatus
from testbed.supervisor.shapes import LabIdentity, PodSurroundings, pod_shape


class KeptShapes:
    """What `get pods` last returned of each pod. Usable from several threads."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Pod, tuple[PodStatus, PodSurroundings, WrittenOnce]] = WeakKeyDictionary()

    def shape(self, lab: LabIdentity, pod: Pod, status: PodStatus, around: PodSurroundings) -> WrittenOnce:
        """Return the pod as a v1 Pod; not to be changed."""
        known = self._kept.get(pod)
        if known is None or known[:2] != (status, around):
            shape = WrittenOnce(pod_shape(lab, pod.manifest, status, around))
            known = self._kept[pod] = (status, around, shape)
        return known[2]
