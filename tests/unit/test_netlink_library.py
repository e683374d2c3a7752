"""What we use of pyroute2 is loaded alone, and the whole package is there for whoever asks for it."""

import subprocess
import sys


def told(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_rest_of_pyroute2_is_not_loaded() -> None:
    program = "import agent.kernel.netlink, sys; "
    program += "print([name in sys.modules for name in ('pyroute2.ndb.main', 'pyroute2.iproute')])"
    assert told(program) == "[False, False]"


def test_somebody_else_gets_the_whole_package() -> None:
    program = "import agent.kernel.netlink; from pyroute2 import NDB, IPRoute; "
    program += "from agent.kernel.netlink_library import library_socket"
    assert told(f"{program}; print(type(library_socket()) is IPRoute, NDB.__name__)") == "True NDB"


def test_a_package_that_is_loaded_already_stays() -> None:
    program = "import pyroute2, sys; import agent.kernel.netlink; "
    program += "print(sys.modules['pyroute2'] is pyroute2, pyroute2.NDB.__name__)"
    assert told(program) == "True NDB"
