"""The warm parent of agents: `python -m testbed.processes.agent_parent DESCRIPTOR [BLANKS]`. See `warm_process.py`.

Besides the agent's log, it receives descriptors of the agent's network and mount namespaces. gRPC is imported here, but
no channel exists before the fork: its threads would stay behind.
"""

import contextlib
import importlib
import os
import pkgutil
import socket
import sys
from collections.abc import Iterator
from typing import NoReturn

from agent.kernel.namespace import set_namespace
from testbed.places import ROOT
from testbed.processes.warm_process import loaded_files, serve

PACKAGE = ROOT / "agent"
NATIVE = PACKAGE / "datapath" / "native" / "_native.so"
NOT_IMPORTED = frozenset({"agent.datapath.native._native", "agent.datapath.native.build"})
"""Built files, which may be missing, and the builder of each."""
OURS = 3
"""Words of an agent's command line before its arguments: Python, -m, agent."""


def main() -> NoReturn:
    """Serve; in each fork, run the requested agent."""
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
    """Import the agents' modules."""
    for found in pkgutil.walk_packages([str(PACKAGE)], "agent."):
        if found.name not in NOT_IMPORTED:
            importlib.import_module(found.name)
    # Otherwise each agent imports it for its certificates alone, which a lab's agents have: 7 MB of private memory
    # each.
    importlib.import_module("cryptography.x509")
    from agent.datapath.native.library import native_library
    from agent.errors import EnvironmentMissing
    from agent.etcd import client as etcd_client

    etcd_client.warm_up()
    with contextlib.suppress(EnvironmentMissing):
        # An agent that needs it reports the error itself.
        native_library()


def _files() -> Iterator[str]:
    yield from loaded_files(str(PACKAGE))
    yield str(NATIVE)


if __name__ == "__main__":
    main()
