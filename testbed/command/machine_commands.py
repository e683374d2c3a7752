"""`testbed join`, `leave` and `machines`: the agent alone on real machines that share an etcd."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from testbed.command.command_line import needs_root, output_option, verbs
from testbed.errors import InvalidInput, TestbedError

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface

    from agent.options.options import Options
    from testbed.control.answers.offline import MachineLine, MachinesAnswer

THE_AGENTS_FLAGS = {"ignore_unknown_options": True}
HOUR_S = 3600

flags_argument = click.argument("flags", nargs=-1, type=click.UNPROCESSED)


@verbs.command(context_settings=THE_AGENTS_FLAGS)
@flags_argument
def join(flags: tuple[str, ...]) -> int:
    """Make this machine a node of the network that etcd describes, by an agent in the foreground.

    FLAGS are the agent's, above all --etcd-endpoints=URL[,URL] and --iface=NAME (overlay-agent --help), or FLANNELD_*
    variables. The bridge docker0 for pods, masquerading and the health port 8286 are enabled. Ctrl-C stops the agent;
    its changes stay until `testbed leave`.
    """
    needs_root("join")
    from testbed.join.joined import JoinedMachine
    from testbed.join.preflight import problems

    options = _options(flags)
    if wrong := problems(options):
        raise TestbedError("\n".join(map(str, wrong)), _exit_code(wrong[0]))
    with JoinedMachine(flags, options, os.environ) as machine:
        state = machine.await_ready(lambda missing: print(f"waiting for   {missing}"))
        if state is None:
            return machine.wait() or 1
        _say_joined(state, options, flags)
        code = machine.wait()
    print(f"\nthe agent has ended; its subnet stays its own until the lease ends\n\nnext:\n  {_pasted('leave', flags)}")
    return code


@verbs.command(context_settings=THE_AGENTS_FLAGS)
@flags_argument
def leave(flags: tuple[str, ...]) -> int:
    """Remove what `join` created on this machine, and release its subnet. FLAGS as for join."""
    needs_root("leave")
    from testbed.join.flags import with_defaults
    from testbed.join.preflight import running_here

    options = _options(flags)
    if running_here(options):
        raise TestbedError(
            f"testbed leave: an agent runs here (got an answer on port {options.healthz_port}; want it stopped first)"
        )
    command = [sys.executable, "-P", "-m", "agent", "cleanup", "--revoke", *with_defaults(flags, os.environ)]
    return subprocess.run(command, check=False).returncode


@verbs.command(context_settings=THE_AGENTS_FLAGS)
@output_option("json")
@flags_argument
def machines(output: str | None, flags: tuple[str, ...]) -> int:
    """List all machines of a network from one place: subnets, leases, and replies through the overlay.

    FLAGS are the agent's, for instance --etcd-endpoints=URL.
    """
    from agent.errors import AgentError
    from testbed.join.listing import network_of
    from testbed.output import tables as render

    options = _options(flags)
    try:
        network = network_of(options)
    except AgentError as error:
        raise TestbedError(str(error), _exit_code(error)) from error
    silent = [machine for machine in network.machines if machine["answers"] is False]
    if output == "json":
        answer: MachinesAnswer = {
            "network": str(network.config.network),
            "backend": network.config.backend_type,
            "joined": network.joined,
            "machines": list(network.machines),
        }
        render.as_json(answer)
        return 1 if silent else 0
    rows = [
        (
            machine["subnet"],
            f"{machine['public_ip']}{' (here)' if machine['here'] else ''}",
            machine["backend"],
            _life(machine["seconds_left"]),
            _answer_of(machine),
        )
        for machine in network.machines
    ]
    if rows:
        render.columns(("subnet", "machine", "backend", "lease", "answers"), rows)
    else:
        print(f"no machine is in {network.config.network} yet")
    if not network.joined:
        print("\nthis machine has not joined, so no other machine was pinged")
        print(f"\nnext:\n  {_pasted('join', flags)}")
    return 1 if silent else 0


def _answer_of(machine: "MachineLine") -> str:
    if machine["answers"] is None:
        return "not asked"
    if not machine["answers"]:
        return "no"
    return "yes" if machine["gateway_answers"] else "yes, without a bridge"


def _options(flags: Sequence[str]) -> "Options":
    from agent.errors import UsageError
    from testbed.host.limits import FOR_GRPC, require
    from testbed.join.flags import options_of

    require(FOR_GRPC)
    try:
        options = options_of(flags, os.environ)
    except UsageError as error:
        raise InvalidInput(str(error)) from error
    if options.healthz_port is None:
        raise InvalidInput("--healthz-port: join and leave ask there (got 0; want a port)")
    return options


def _exit_code(error: Exception) -> int:
    from agent.errors import InvalidConfig, RegistryError, UsageError

    if isinstance(error, UsageError | InvalidConfig):
        return 2
    return 4 if isinstance(error, RegistryError) else 3


def _say_joined(state: Mapping[str, Any], options: "Options", flags: Sequence[str]) -> None:
    from agent.node.subnet_env import first_address, read_env

    lease, env = state["lease"], read_env(options.subnet_file)
    print(f"subnet        {lease['subnet']}, leased by {lease['public_ip']}")
    print(f"overlay       {state['device'] or 'no device'}, MTU {state['overlay_mtu']}")
    print(f"peers         {len(state['forwarding'])}")
    if env is not None and options.bridge is not None:
        gateway = first_address(env.subnet.ipv4)
        print(f"bridge        {options.bridge}, {gateway}\n\na pod by hand:")
        print(_pod_by_hand(options.bridge, gateway, state["overlay_mtu"]))
    for warning in state["warnings"]:
        print(f"\nwarning: {warning}")
    print(f"\nnext, in another terminal:\n  {_pasted('machines', flags)}\n\nCtrl-C stops the agent")


def _pod_by_hand(bridge: str, gateway: "IPv4Interface | IPv6Interface", mtu: int) -> str:
    commands = (
        "ip netns add web",
        f"ip link add vethweb mtu {mtu} type veth peer name eth0 mtu {mtu} netns web",
        f"ip link set vethweb master {bridge} up",
        f"ip -n web address add {gateway.ip + 1}/{gateway.network.prefixlen} dev eth0",
        "ip -n web link set eth0 up",
        f"ip -n web route add default via {gateway.ip}",
    )
    return "\n".join(f"  sudo {command}" for command in commands)


def _pasted(verb: str, flags: Sequence[str]) -> str:
    return shlex.join(["sudo", "testbed", verb, *flags])


def _life(seconds_left: int | None) -> str:
    if seconds_left is None:
        return "reserved"
    if seconds_left < 2 * HOUR_S:
        return f"{seconds_left} s" if seconds_left < 120 else f"{seconds_left // 60} min"
    return f"{seconds_left // HOUR_S} h"
