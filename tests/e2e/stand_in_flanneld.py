#!/usr/bin/env python3
"""A flanneld for tests, as far as other nodes and the kernel see one: it takes flannel's flags, leases a subnet, writes
subnet.env, and makes for each peer what a real one makes with vxlan or host-gw. It reports nothing, and what is deleted
behind its back stays deleted.

    stand_in_flanneld.py [--without-routes] FLAGS
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.assembly import choose_underlay, open_registry
from agent.kernel.journal import open_journal
from agent.kernel.kernel import Kernel
from agent.lease import Lease, LeaseAttrs
from agent.leases.manager import SubnetManager
from agent.netconfig.config import parse_network_config
from agent.node.subnet_env import SubnetEnv, read_previous_subnet, write_subnet_env
from agent.options.command_line import parse_options

DEVICE, HEADERS = "flannel.1", {"vxlan": 50, "host-gw": 0}
POLL_S = 0.3


def run(command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout


def vtep(interface: str, address: object, mtu: int) -> str:
    """Make the device unless it is there, and return its MAC address."""
    file = Path(f"/sys/class/net/{DEVICE}/address")
    if subprocess.run(["ip", "link", "show", DEVICE], capture_output=True, check=False).returncode:
        made = f"type vxlan id 1 dev {interface} local {address} dstport 8472 nolearning"
        run(f"ip link add {DEVICE} mtu {mtu} {made}")
    return file.read_text().strip() if file.exists() else run(f"ip -br link show {DEVICE}").split()[2]


def for_peer(lease: Lease) -> Iterator[str]:
    """Yield the commands that make a peer's entries."""
    subnet, address = lease.subnet.ipv4, lease.attrs.public_ip
    if lease.attrs.backend_type == "host-gw":
        yield f"ip route replace {subnet} via {address}"
        return
    assert isinstance(lease.attrs.backend_data, dict)
    mac, gateway = lease.attrs.backend_data["VtepMAC"], subnet.network_address
    yield f"ip neigh replace {gateway} lladdr {mac} nud permanent dev {DEVICE}"
    yield f"bridge fdb replace {mac} dst {address} dev {DEVICE} self permanent"
    yield f"ip route replace {subnet} via {gateway} dev {DEVICE} onlink"


def main(argv: list[str]) -> None:
    """Run until killed."""
    routes = "--without-routes" not in argv
    options = parse_options([word for word in argv if word != "--without-routes"], {})
    registry = open_registry(options)
    config = parse_network_config(registry.config())
    with Kernel(open_journal(None, "stand-in")) as kernel:
        underlay, own = choose_underlay(options, kernel), kernel.own_addresses(4)
    mtu = underlay.mtu - HEADERS[config.backend_type]
    data = None
    if config.backend_type == "vxlan":
        data = {"VNI": 1, "VtepMAC": vtep(underlay.interface, underlay.address, mtu)}
    attrs = LeaseAttrs(public_ip=underlay.public_ip, backend_type=config.backend_type, backend_data=data)
    previous, _ = read_previous_subnet(options.subnet_file)
    manager = SubnetManager(registry, config, attrs, previous_subnet=previous, own_addresses=own)
    stop = threading.Event()
    lease = manager.acquire(stop, print)
    assert lease is not None
    if data is not None:
        run(f"ip address replace {lease.subnet.ipv4.network_address}/32 dev {DEVICE}")
        run(f"ip link set {DEVICE} up")
    write_subnet_env(options.subnet_file, SubnetEnv(config.network, lease.subnet, mtu, options.ip_masq))
    threading.Thread(target=manager.run_renewal, args=(stop, print, print), daemon=True).start()
    known: set[object] = set()
    while True:
        for other in registry.list_leases().leases.values():
            key = (other.subnet, other.attrs.to_json())
            if routes and other.subnet != lease.subnet and key not in known:
                known.add(key)
                for command in for_peer(other):
                    run(command)
                print(f"peer {other.subnet} at {other.attrs.public_ip}", flush=True)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(sys.argv[1:])
