"""`testbed bench`: python, native, kernel vxlan and no overlay, measured side by side."""

from pathlib import Path

import click

from testbed.bench.plan import USUAL, BenchPlan, choose_measurements, choose_paths
from testbed.command.client import TestbedError
from testbed.command.command_line import needs_root, output_option, verbs

PICTURES = (".png", ".svg", ".pdf")


@verbs.command()
@click.option("--paths", default=",".join(USUAL), show_default=True, metavar="PATH,…", help="What to compare.")
@click.option("--backends", default="", metavar="BACKEND,…", help="And backends of our agent: udp,vxlan,host-gw,…")
@click.option("--only", default="", metavar="WHAT,…", help="Not all measurements: tcp,udp,latency or single ones.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Medians are of these.")
@click.option("--seconds", type=click.IntRange(1, 600), default=2, show_default=True, help="Of each measurement.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png .svg .pdf")
@output_option("json")
def bench(
    paths: str, backends: str, only: str, rounds: int, seconds: int, plot: Path | None, output: str | None
) -> int:
    """Measure how fast packets get from node to node, several ways side by side.

    It makes a lab of its own (two nodes, a pod each) and takes it down afterwards. Labs that run stay as they are, but
    share the machine: best run it alone. Every round goes through all paths, so what disturbs one disturbs all.

    \b
    python   udp backend, one packet a system call
    native   udp backend, packets in bulk
    vxlan    plain kernel vxlan, built by hand
    none     no overlay: from node to node
    host-gw  plain routes between nodes, made by hand

    The backends that the kernel moves packets for, beside the same by hand:
    bench --paths vxlan,host-gw --backends udp,vxlan,host-gw
    """
    try:
        plan = BenchPlan(choose_paths(paths, backends), rounds, seconds, choose_measurements(only))
    except ValueError as error:
        raise TestbedError(f"testbed bench: {error}", 2) from error
    if plot is not None:
        _check_picture(plot)
    needs_root("bench")
    from testbed.bench.report import worked
    from testbed.bench.session import run

    result = run(plan)
    if plot is not None:
        from testbed.bench.plot import draw

        draw(result, plot)
    if output == "json":
        from testbed.command import render

        render.as_json(result)
    else:
        from testbed.bench.show import show

        show(result, plot)
    return 0 if worked(result) else 1


def _check_picture(plot: Path) -> None:
    """Before minutes of measuring, not after them."""
    if plot.suffix not in PICTURES:
        raise TestbedError(f"testbed bench: --plot: no such format (got {plot}; want a file {', '.join(PICTURES)})", 2)
    if not plot.absolute().parent.is_dir():
        raise TestbedError(f"testbed bench: --plot: no such directory (got {plot.parent}; want one that exists)", 2)
