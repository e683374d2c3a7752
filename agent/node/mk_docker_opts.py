"""flannel's mk-docker-opts.sh in Python: dockerd's options from subnet.env, with the script's flags and output.

python -m agent.node.mk_docker_opts [-f SUBNET_ENV] [-d DOCKER_ENV] [-i] [-c] [-m] [-k KEY]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from agent.errors import EnvironmentMissing
from agent.node.subnet_env import read_values, replace_file

ROUTES = Path("/proc/net/route")
FAILED, ENVIRONMENT = 1, 3


def docker_options(values: Mapping[str, str], *, ip_masq: bool) -> dict[str, str]:
    """Return variable → option for dockerd, of what subnet.env has. Pure."""
    options = {}
    if subnet := values.get("FLANNEL_SUBNET"):
        options["DOCKER_OPT_BIP"] = f"--bip={subnet}"
    if ip_masq and (ours := values.get("FLANNEL_IPMASQ")):
        # One of the two masquerades, never both.
        options["DOCKER_OPT_IPMASQ"] = f"--ip-masq={'false' if ours == 'true' else 'true'}"
    if mtu := values.get("FLANNEL_MTU"):
        options["DOCKER_OPT_MTU"] = f"--mtu={mtu}"
    return options


def render(options: Mapping[str, str], *, individual: bool, combined: bool, key: str) -> str:
    """Return the text of the file, in the requested forms, or in both if none is. Pure."""
    both = not individual and not combined
    lines = [f'{name}="{option}"' for name, option in options.items()] if individual or both else []
    if combined or both:
        lines.append(f'{key}="{"".join(f" {option}" for option in options.values())}"')
    return "".join(f"{line}\n" for line in lines)


def routed_elsewhere(subnet: IPv4Network, table: str) -> bool:
    """Return whether /proc/net/route, given as text, routes the subnet through a gateway. Pure."""
    for line in table.splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        network, bits = (int.from_bytes(bytes.fromhex(word)[::-1], "big") for word in (destination, mask))
        if int(gateway, 16) and (network, bits) == (int(subnet.network_address), int(subnet.netmask)):
            return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; return 0, or 1 as the script does if the subnet is routed through a gateway."""
    parser = argparse.ArgumentParser("mk_docker_opts", description="Options for dockerd from subnet.env.")
    parser.add_argument("-f", type=Path, default=Path("/run/flannel/subnet.env"), help="subnet.env")
    parser.add_argument("-d", type=Path, default=Path("/run/docker_opts.env"), help="the file to write")
    parser.add_argument("-i", action="store_true", help="each option as a variable of its own")
    parser.add_argument("-c", action="store_true", help="all options in one variable")
    parser.add_argument("-m", action="store_true", help="omit --ip-masq")
    parser.add_argument("-k", default="DOCKER_OPTS", help="name of the one variable")
    given = parser.parse_args(argv)
    try:
        values = read_values(given.f)
        options = docker_options(values, ip_masq=not given.m)
        replace_file(given.d, render(options, individual=given.i, combined=given.c, key=given.k))
        subnet = IPv4Interface(values["FLANNEL_SUBNET"]).network if "FLANNEL_SUBNET" in values else None
        table = ROUTES.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        return _complain(f"{given.f}: {error.strerror if isinstance(error, OSError) else error}", ENVIRONMENT)
    except EnvironmentMissing as error:
        return _complain(str(error), ENVIRONMENT)
    if subnet is not None and routed_elsewhere(subnet, table):
        return _complain(f"{subnet}: a route leads to it through a gateway (got one; want it gone)", FAILED)
    return 0


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
