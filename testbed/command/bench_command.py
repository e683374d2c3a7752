"""`testbed bench`: python, native, kernel vxlan and no overlay, measured side by side."""

from pathlib import Path

import click

from testbed.bench.plan import USUAL, BenchPlan, choose_measurements, choose_paths
from testbed.command.command_line import Verbs, needs_root, output_option, verbs
from testbed.errors import InvalidInput, TestbedError

PICTURES = (".png", ".svg", ".pdf")


@verbs.group(cls=Verbs, invoke_without_command=True)
@click.option("--paths", default=",".join(USUAL), show_default=True, metavar="PATH,…", help="What to compare.")
@click.option("--backends", default="", metavar="BACKEND,…", help="And backends of our agent: udp,vxlan,host-gw,…")
@click.option("--only", default="", metavar="WHAT,…", help="Not all measurements: tcp,udp,latency or single ones.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Medians are of these.")
@click.option("--seconds", type=click.IntRange(1, 600), default=2, show_default=True, help="Of each measurement.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png .svg .pdf")
@output_option("json")
@click.pass_context
def bench(
    context: click.Context,
    paths: str,
    backends: str,
    only: str,
    rounds: int,
    seconds: int,
    plot: Path | None,
    output: str | None,
) -> int:
    """Measure how fast packets get from node to node, over several paths side by side.

    It makes a lab of its own (two nodes, a pod each) and takes it down afterwards. Labs that run stay as they are, but
    share the machine: best run it alone. Every round goes through all paths, so what disturbs one disturbs all.

    \b
    python   udp backend, one packet per system call
    native   udp backend, packets in bulk
    kernel   udp backend, by the kernel (FOU), without a process on the way
    vxlan    plain kernel vxlan, built by hand
    none     no overlay: from node to node
    host-gw  plain routes between nodes, made by hand

    Compare the agent's backends with the same paths built by hand:
    bench --paths vxlan,host-gw --backends udp,vxlan,host-gw
    """
    if context.invoked_subcommand is not None:
        return 0
    try:
        plan = BenchPlan(choose_paths(paths, backends), rounds, seconds, choose_measurements(only))
    except ValueError as error:
        raise InvalidInput(f"testbed bench: {error}") from error
    _check_picture("bench", plot)
    needs_root("bench")
    from testbed.bench.report import worked
    from testbed.bench.session import run

    result = run(plan)
    # Before the picture, for which a library or room on the disk may be missing.
    if output == "json":
        from testbed.output import tables as render

        render.as_json(result)
    else:
        from testbed.bench.show import show

        show(result, drawn=plot is not None)
    if plot is not None:
        from testbed.bench.plot import draw

        draw(result, plot)
        _name_picture(plot, output)
    return 0 if worked(result) else 1


@bench.command()
@click.option("--nodes", default="10,50,100,200", show_default=True, metavar="N,…", help="One lab of each size.")
@click.option("--pods-per-node", type=click.IntRange(0, 200), default=2, show_default=True, help="echo and shell.")
@click.option("--rest", type=click.IntRange(1, 600), default=10, show_default=True, help="Seconds watched at rest.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="Plain Mininet of the same size beside.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png .svg .pdf")
@output_option("json")
def scale(nodes: str, pods_per_node: int, rest: int, plain: bool, plot: Path | None, output: str | None) -> int:
    """Measure how a lab grows: start, memory, how soon all nodes know of a change, and what it takes at rest.

    For each size it makes a lab of its own and takes it down afterwards: time to ready by phase; memory; processor time
    at rest; 1,000 pings between pods chosen at random; then a node joins, a node leaves, an agent is killed and etcd is
    restarted, each until every node knows all others again. Plain Mininet gets one host and link for each node and pod.
    """
    from testbed.bench.scale_plan import ScalePlan, sizes_of

    try:
        plan = ScalePlan(sizes_of(nodes), pods_per_node, float(rest), plain)
    except ValueError as error:
        raise InvalidInput(f"testbed bench scale: {error}") from error
    _check_picture("bench scale", plot)
    needs_root("bench scale")
    from testbed.bench.scale import run
    from testbed.bench.scale_show import progress, show

    result = run(plan, progress)
    if output == "json":
        from testbed.output import tables as render

        render.as_json(result)
    else:
        show(result)
    if plot is not None:
        from testbed.bench.plot_scale import draw

        draw(result, plot)
        _name_picture(plot, output)
    if (failed := result["failed"]) is not None:
        raise TestbedError(f"bench scale: {failed['nodes']} nodes: {failed['why']}")
    return 0 if all(one["pings"]["lost"] == 0 for one in result["sizes"]) else 1


def _check_picture(verb: str, plot: Path | None) -> None:
    """Check before minutes of measuring, not after them."""
    if plot is None:
        return
    verb = f"testbed {verb}"
    if plot.suffix not in PICTURES:
        raise InvalidInput(f"{verb}: --plot: no such format (got {plot}; want a file {', '.join(PICTURES)})")
    if not plot.absolute().parent.is_dir():
        raise InvalidInput(f"{verb}: --plot: no such directory (got {plot.parent}; want one that exists)")


def _name_picture(plot: Path, output: str | None) -> None:
    if output is None:
        print(f"drawn: {plot}")
