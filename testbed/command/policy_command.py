"""`testbed policy`: what network policies allow, without sending a packet."""

from typing import TYPE_CHECKING

import click

from testbed.command.command_line import bare_name, lab_option, namespace_option, output_option, verbs
from testbed.command.completion import names
from testbed.control.client import ask, find_lab
from testbed.control.questions import POLICY
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.policy import PolicyAnswer, PolicyPair

SOME = "some"


@verbs.command()
@click.argument("source", metavar="[SRC]", required=False, shell_complete=names("pods", "nodes"))
@click.argument("destination", metavar="[DST[:PORT]]", required=False, shell_complete=names("pods", "nodes"))
@click.option("--matrix", is_flag=True, help="Every two pods; -n NAMESPACE: those of one namespace.")
@click.option("--svg", metavar="FILE", help="Also draw the matrix.")
@click.option("--udp", "protocol", flag_value="udp", help="UDP.  [default: TCP with a PORT, else all]")
@click.option("--sctp", "protocol", flag_value="sctp", help="SCTP.")
@click.option("--icmp", "protocol", flag_value="icmp", help="ICMP, and other protocols without ports.")
@click.option("-6", "--ipv6", is_flag=True, help="By IPv6 addresses, on a dual-stack network.")
@namespace_option
@lab_option
@output_option("json")
def policy(
    source: str | None,
    destination: str | None,
    matrix: bool,
    svg: str | None,
    protocol: str | None,
    ipv6: bool,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> int:
    """Show which NetworkPolicies allow or deny one end to reach another, and why; no packet is sent.

    \b
    policy client tomcat:8080     one port; policy client tomcat: every port
    policy shop/web svc/db:5432   each endpoint of a Service
    policy 192.168.8.10 tomcat    from an address outside
    policy --matrix               every two pods; with --svg FILE also as a picture

    Exit code 1 when nothing passes.
    """
    from testbed.output import tables as render
    from testbed.trace.arguments import split_end

    if (source is None) != matrix or (destination is None) != matrix:
        raise click.UsageError("want SRC and DST[:PORT], or --matrix", click.get_current_context())
    if svg is not None and not matrix:
        raise click.UsageError("--svg draws the matrix (want --matrix --svg FILE)", click.get_current_context())
    if matrix and protocol is not None:
        said = f"--matrix shows every protocol (got --{protocol} too; want one of them)"
        raise click.UsageError(said, click.get_current_context())
    record = find_lab(lab)
    if matrix:
        answer = ask(record, POLICY, matrix=True, namespace=namespace, ipv6=ipv6)
        if output == "json":
            render.as_json(answer)
        else:
            show_matrix(answer)
        if svg is not None:
            from testbed.command.graph_command import write_picture
            from testbed.graph.policy_matrix import draw_matrix

            write_picture("policy --svg", svg, draw_matrix(record.name, answer).encode())
        return 0
    name, port = split_end(bare_name(destination or ""), "policy")
    sender, _ = split_end(bare_name(source or ""), "policy")
    answer = ask(
        record,
        POLICY,
        source=sender,
        destination=name,
        port=port,
        protocol=protocol or ("tcp" if port is not None else None),
        namespace=namespace,
        ipv6=ipv6,
    )
    targets = answer["targets"]
    if output == "json":
        render.as_json(answer)
    else:
        rows = [
            (f"{answer['source']} → {one['target']}", ", ".join(line["ports"]), line["reason"])
            for one in targets
            for line in one["lines"]
        ]
        render.columns(("from → to", "ports", "answer"), rows)
        by = dict.fromkeys(
            name
            for one in targets
            for line in one["lines"]
            for side in (line["egress"], line["ingress"])
            for name in (side["isolated_by"] if side else ())
        )
        look = [f"describe netpol {name.removeprefix('default/')}" for name in list(by)[:2]]
        next_commands(record.name, *(look or ["policy --matrix"]))
    return 0 if any(line["allowed"] for one in targets for line in one["lines"]) else 1


def show_matrix(answer: "PolicyAnswer") -> None:
    """Print a table of all pairs, and the ports of those that pass at some."""
    from testbed.output import tables as render

    pods = answer["pods"]
    by_pair = {(one["source"], one["target"]): one for one in answer["pairs"]}
    if not pods:
        print("no pods")
        return
    rows = [(source, *(_cell(by_pair.get((source, target))) for target in pods)) for source in pods]
    render.matrix(("FROM \\ TO", *pods), rows)
    some = [one for one in answer["pairs"] if _cell(one) == SOME]
    if some:
        print()
        render.columns(
            ("from", "to", "passes"), ((one["source"], one["target"], ", ".join(one["ports"])) for one in some)
        )


def _cell(pair: "PolicyPair | None") -> str:
    if pair is None:
        return "-"
    return "no" if not pair["ports"] else "yes" if pair["ports"] == ["all"] else SOME
