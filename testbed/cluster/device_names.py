"""What an agent calls its devices; without imports, so that who only looks at a lab loads nothing for it."""

OVERLAY_DEVICES = "flannel"
"""How the names of all overlay devices begin."""
DROP_DEVICE = "overlay-drop0"
"""Takes a node's overlay packets while its agent is dead (docs/reliability.md)."""
