"""The verb `kubeconfig`: a way into the lab for kubectl and Kubernetes' clients."""

import click

from testbed.command.command_line import lab_option, verbs
from testbed.command.loopback import listen
from testbed.control.client import ask, find_lab
from testbed.control.questions import API
from testbed.errors import InvalidInput, TestbedError


@verbs.command()
@lab_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Of the API.  [default: free]")
def kubeconfig(lab: str | None, port: int) -> None:
    """Print the path of a kubeconfig, with which kubectl and Kubernetes' clients use the lab.

    export KUBECONFIG=$(sudo testbed kubeconfig); kubectl get pods. The first time this starts the lab's API server, on
    127.0.0.1 with TLS; it ends with the lab. The file gives root's rights in the lab: only root and the user who ran
    sudo can read it.
    """
    record = find_lab(lab)
    try:
        # First without a socket: an API server that runs has its port already.
        answer = ask(record, API)
    except TestbedError:
        with listen("kubeconfig: --port", port) as listener:
            answer = ask(record, API, (listener.fileno(),))
    if port not in (0, answer["port"]):
        raise InvalidInput(f"kubeconfig: --port: the API server runs already (got {port}; want {answer['port']})")
    print(answer["kubeconfig"])
