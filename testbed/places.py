"""Where things stand: in the clone or in the site-packages that this code was loaded from."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The directory that `agent` and `testbed` lie in."""
INSTALLER = ROOT / "scripts" / "install"
IS_CLONE = INSTALLER.exists()
"""Whether scripts/install looks after this code; otherwise it came as a package."""
INSTALL = "sudo scripts/install" if IS_CLONE else "pip install 'overlay-testbed[lab]'"
"""What brings missing Python packages and compiled parts."""
TOPOLOGIES = ROOT / "topologies" if IS_CLONE else ROOT / "testbed" / "topologies"
PAUSE = ROOT / "testbed" / "pods" / "bin" / "pause"
"""The compiled pause; setup.py makes it."""
MONOTONIC_SLEEP = ROOT / "testbed" / "faults" / "bin" / "monotonic_sleep.so"
"""What is preloaded before libfaketime; setup.py makes it."""
ECHO_SERVER = ROOT / "testbed" / "pods" / "echo_server.py"
"""What containers of the image echo run."""
AGNHOST = ROOT / "testbed" / "pods" / "agnhost.py"
"""What containers of the image agnhost run."""
