"""Faults on command: what can be broken in a lab, how it is injected and healed, and which faults are active."""
