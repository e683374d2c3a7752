"""Faults on command: what can be broken in a lab, how it is done and undone, and what is broken now."""
