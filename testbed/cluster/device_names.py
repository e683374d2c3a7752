"""Names of nodes' devices; without imports, so that viewing a lab loads nothing for it."""

KERNEL_PEERS = "flfou-"
"""Prefix of the udp backend's devices where the kernel makes the datagrams (--datapath kernel), one for each peer."""
OVERLAY_DEVICES = ("flannel", KERNEL_PEERS)
"""Prefixes of all overlay devices."""
BRIDGE = "docker0"
"""A node's bridge for pods, unless CNI plugins make their networks; its MAC address does not change with its ports."""
DROP_DEVICE = "overlay-drop0"
"""Drops a node's overlay packets while its agent is dead (docs/reliability.md)."""
