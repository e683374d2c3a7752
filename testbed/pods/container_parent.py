"""The warm parent of containers' shims: `python -I -S container_parent.py DESCRIPTOR [BLANKS]`.

See `testbed/processes/warm_process.py`. Besides the container's log, it receives descriptors of the document and the
control socket; the requested command line is only for ps.
"""

import os
import socket
import sys
from typing import NoReturn

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from testbed.pods import container
from testbed.processes.warm_process import loaded_files, serve

PACKAGE = os.path.dirname(os.path.abspath(__file__))


def main() -> NoReturn:
    """Serve; in each fork, run the requested shim."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    _, (document, control) = serve(channel, lambda: loaded_files(PACKAGE))
    os.chdir("/")
    sys.exit(container.main(["--run", str(document), str(control)]))


if __name__ == "__main__":
    main()
