"""`testbed ui`: the lab live in a browser."""

import click

from testbed.command.command_line import lab_option, verbs
from testbed.command.loopback import listen
from testbed.control.client import find_lab


@verbs.command()
@lab_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Of the page.  [default: free]")
def ui(lab: str | None, port: int) -> None:
    """Show the lab live on a page in the browser, until Ctrl-C.

    Graph, traffic, tables and events as they change; click two pods to follow a packet between them, anything else to
    see its facts. Space plays, the arrow keys step, t enlarges the type, d darkens the page. The page is on 127.0.0.1
    only; its address has a secret in it. From another machine: ssh -L PORT:127.0.0.1:PORT.
    """
    from testbed.ui.feed import Feed
    from testbed.ui.server import Server

    record = find_lab(lab)
    feed = Feed(record)
    server = Server(feed, listen("ui: --port", port))
    feed.start()
    print(f"lab {record.name}, until Ctrl-C, at\n  {server.url}", flush=True)
    server.serve_forever()
