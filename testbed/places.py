"""Where things stand in the clone that this code was loaded from."""

from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
TOPOLOGIES = CLONE / "topologies"
PAUSE = CLONE / "testbed" / "pods" / "bin" / "pause"
"""The compiled pause; scripts/install makes it."""
MONOTONIC_SLEEP = CLONE / "testbed" / "faults" / "bin" / "monotonic_sleep.so"
"""What is preloaded before libfaketime; scripts/install makes it."""
