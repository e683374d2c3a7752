"""Paths in the clone or the site-packages from which this code was loaded."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The directory that contains `agent` and `testbed`."""
INSTALLER = ROOT / "scripts" / "install"
IS_CLONE = INSTALLER.exists()
"""Whether this code is a clone that scripts/install maintains; otherwise it was installed as a package."""
INSTALL = "sudo scripts/install" if IS_CLONE else "pip install 'overlay-testbed[lab]'"
"""The command that installs missing Python packages and compiled parts."""
TOPOLOGIES = ROOT / "topologies" if IS_CLONE else ROOT / "testbed" / "topologies"
PAUSE = ROOT / "testbed" / "pods" / "bin" / "pause"
"""The compiled pause, built by setup.py."""
MONOTONIC_SLEEP = ROOT / "testbed" / "faults" / "bin" / "monotonic_sleep.so"
"""The library that is preloaded before libfaketime, built by setup.py."""
ECHO_SERVER = ROOT / "testbed" / "pods" / "echo_server.py"
"""The program of the image echo."""
AGNHOST = ROOT / "testbed" / "pods" / "agnhost.py"
"""The program of the image agnhost."""
