"""What a real flanneld's udp backend does with the kernel, step by step, and then one packet per system call.

    python -m tests.netns.flanneld_steps NETWORK SUBNET ADDRESS PEER

The device is the first free `flannel%d`; address, MTU, up, route follow, and a route that is already there (EEXIST) is
no error. It prints the device's name and carries packets between it and UDP 8285 of PEER until it is killed.
"""

import os
import select
import socket
import subprocess
import sys

from agent.datapath.tun import open_tun

PORT = 8285


def main(network: str, subnet: str, address: str, peer: str) -> None:
    """Run until killed."""
    tun = open_tun("flannel%d")
    base = subnet.partition("/")[0]
    for words in (
        f"address add {base}/32 dev {tun.name}",
        f"link set {tun.name} mtu 1472",
        f"link set {tun.name} up",
        f"route add {network} dev {tun.name} scope global",
    ):
        done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
        if done.returncode and "File exists" not in done.stderr:
            sys.exit(f"ip {words}: {done.stderr}")
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind((address, PORT))
    print(tun.name, flush=True)
    while True:
        ready, _, _ = select.select([tun.descriptor, udp.fileno()], [], [])
        if udp.fileno() in ready:
            os.write(tun.descriptor, udp.recv(2000))
        if tun.descriptor in ready:
            udp.sendto(os.read(tun.descriptor, 2000), (peer, PORT))


if __name__ == "__main__":
    main(*sys.argv[1:])
