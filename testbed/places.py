"""Names of the project, and paths in the clone or the site-packages from which this code was loaded."""

from pathlib import Path

PROJECT = "overlay-testbed"
"""Its name in pyproject.toml, and as a package."""
DEFAULT_CLUSTER = "nginx_tomcat"
"""The cluster file of an `up` without a name."""
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
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of programs that get nothing from their caller's environment."""
AGNHOST = ROOT / "testbed" / "pods" / "agnhost.py"
"""The program of the image agnhost."""
