"""Names of agents' devices; without imports, so that viewing a lab loads nothing for it."""

OVERLAY_DEVICES = "flannel"
"""Prefix of all overlay devices."""
DROP_DEVICE = "overlay-drop0"
"""Drops a node's overlay packets while its agent is dead (docs/reliability.md)."""
