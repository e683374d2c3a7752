"""Broken labs to repair: the faults of each, and a judge that reports whether the lab is repaired."""
