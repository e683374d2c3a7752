"""The warm parent of agents: `python -m agent.forkserver DESCRIPTOR [BLANKS]`. See `agent/warm_parent.py`.

Beside an agent's log come descriptors of the network and the mount namespace that it shall run in. gRPC is imported
here, but no channel exists before the fork: its threads would stay behind.
"""

import contextlib
import importlib
import os
import pkgutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from agent.namespace_thread import set_namespace
from agent.warm_parent import loaded_files, serve

PACKAGE = Path(__file__).resolve().parent
NATIVE = PACKAGE / "datapath" / "_native.so"
NOT_IMPORTED = frozenset({"agent.forkserver", "agent.datapath._native", "agent.datapath.native_build"})
"""Ourselves; what is no module of Python's; what makes the former."""
OURS = 3
"""Words of an agent's command line before its arguments: Python, -m, agent."""


def main() -> NoReturn:
    """Serve; in each fork, be the agent that was asked for."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    words, namespaces = serve(channel, _files)
    for namespace in namespaces:
        set_namespace(namespace)
        os.close(namespace)
    os.chdir("/")
    sys.argv = [str(PACKAGE / "__main__.py"), *words[OURS:]]
    from agent.__main__ import run

    sys.exit(run(words[OURS:], os.environ))


def warm_up() -> None:
    """Import what agents import."""
    import agent

    for found in pkgutil.walk_packages(agent.__path__, "agent."):
        if found.name not in NOT_IMPORTED:
            importlib.import_module(found.name)
    from agent import etcd_client
    from agent.datapath.native_library import native_library
    from agent.errors import EnvironmentMissing

    etcd_client.warm_up()
    with contextlib.suppress(EnvironmentMissing):
        # An agent that needs it says so itself.
        native_library()


def _files() -> Iterator[str]:
    yield from loaded_files(str(PACKAGE))
    yield str(NATIVE)


if __name__ == "__main__":
    main()
