"""The part of pyroute2 that we use, without the rest of it.

`import pyroute2` loads everything that it has (NDB, conntrack, wireguard, 9P …): a third more processor time at the
start of every agent, and 6 MB of its memory for good. So the package's own __init__ runs only when somebody asks the
package for a name that is not one of its modules; until then a package object that knows where they lie stands for it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

PACKAGE = "pyroute2"


def _stand_in() -> ModuleType:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    loader, package = spec.loader, importlib.util.module_from_spec(spec)

    def ask(name: str) -> object:
        """A name that the package does not have yet (PEP 562): a module of it, or what its __init__ makes."""
        if name.startswith("__"):
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{PACKAGE}.{name}") is not None:
            return importlib.import_module(f"{PACKAGE}.{name}")
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = ask
    return package


if PACKAGE not in sys.modules:
    sys.modules[PACKAGE] = _stand_in()

from pyroute2.netlink.exceptions import NetlinkDumpInterrupted  # noqa: E402 - the stand-in must be there first
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal  # noqa: E402 - the same

__all__ = ["KernelRefusal", "NetlinkDumpInterrupted", "library_socket", "wireguard_socket"]


def library_socket() -> Any:  # noqa: ANN401 - pyroute2 ships no types
    """A socket for everything that rtnetlink has, to be closed. Imported when used: next to nothing needs it.

    What comes after a request is over, such as the kernel's acknowledgement of a read, pyroute2 0.9 puts into a queue
    for whoever listens to everything. Nobody does here: it would be kept for good, a page for each.
    """
    import asyncio

    from pyroute2.iproute import IPRoute

    class Nowhere(asyncio.Queue[Any]):
        def put_nowait(self, item: object) -> None:
            """Forget it."""

    opened = IPRoute(groups=0)
    queue = opened.asyncore.msg_queue
    queue.root = queue.queues[0] = Nowhere()
    return opened


def wireguard_socket() -> Any:  # noqa: ANN401 - pyroute2 ships no types
    """A socket for WireGuard devices, to be closed. Imported when used: only one backend needs it."""
    from pyroute2.netlink.generic.wireguard import WireGuard

    return WireGuard()
