"""A pod that sends what it must not, and how much of it arrives where."""

import re

from testbed.testing.lab_handle import LabHandle

FORGED = 50
PERIOD_S = 0.1
"""50 packets in 5 s."""

# What the pod runs: packets of any addresses, which root in a pod may send. WHAT SOURCE DESTINATION INNER COUNT PERIOD.
FORGER = """
import socket, struct, sys, time
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def ipv4(source, destination, protocol, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload
def udp(source_port, destination_port, payload):
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
def icmpv6(source, destination, body):
    pseudo = source + destination + struct.pack("!IHBB", len(body), 0, 0, 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + destination + body
def mac(text):
    return bytes.fromhex(text.replace(":", ""))
what, source, destination, inner, count, period = sys.argv[1:]
mark = udp(40000, 40001, b"forged")
if what in ("overlay", "plain"):
    packet = ipv4(source, destination, 17, mark)
    if what == "overlay":
        packet = ipv4(source, destination, 17, udp(8285, 8285, ipv4(*inner.split(","), 17, mark)))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    send = lambda: raw.sendto(packet, (destination, 0))
else:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    own, gateway = raw.getsockname()[4], mac(inner) if inner != "-" else b"\\xff" * 6
    if what == "mac":
        frame = gateway + mac("02:00:00:00:00:99") + b"\\x08\\x00" + ipv4(source, destination, 17, mark)
    elif what == "ip":
        frame = gateway + own + b"\\x08\\x00" + ipv4(source, destination, 17, mark)
    elif what == "arp":
        said = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, own, socket.inet_aton(source), b"\\xff" * 6,
                           socket.inet_aton(destination))
        frame = b"\\xff" * 6 + own + b"\\x08\\x06" + said
    elif what == "router":
        here, all_nodes = bytes.fromhex("fe80" + "00" * 13 + "99"), bytes.fromhex("ff02" + "00" * 13 + "01")
        prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xc0, 3600, 3600, 0, bytes.fromhex("20010db8" + "00" * 12))
        body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + struct.pack("!BB6s", 1, 1, own) + prefix
        frame = bytes.fromhex("333300000001") + own + b"\\x86\\xdd" + icmpv6(here, all_nodes, body)
    elif what == "neighbour":
        here, claimed = (socket.inet_pton(socket.AF_INET6, text) for text in (source, destination))
        body = struct.pack("!BBHI16sBB6s", 136, 0, 0, 0x20000000, claimed, 2, 1, own)
        all_nodes = bytes.fromhex("ff02" + "00" * 13 + "01")
        frame = bytes.fromhex("333300000001") + own + b"\\x86\\xdd" + icmpv6(here, all_nodes, body)
    send = lambda: raw.send(frame)
for _ in range(int(count)):
    send()
    time.sleep(float(period))
"""


class Hostile:
    """The pod shell1 and what it can find out about the others."""

    def __init__(self, lab: LabHandle) -> None:
        self.lab = lab
        self.pods = {pod.name: str(pod.address) for pod in lab.pods.values()}
        self.nodes = {node.name: node.address for node in lab.nodes.values()}

    def forge(self, what: str, source: str, destination: str, inner: str = "-", place: str = "shell1") -> None:
        """Send so many packets in so many seconds."""
        words = ["python3", "-c", FORGER, what, source, destination, inner, str(FORGED), str(PERIOD_S)]
        self.lab.exec(place, *words).check()

    def dropped(self, rule: str) -> int:
        """Return how many packets the node's rules with that comment have dropped."""
        rules = self.lab.exec("node1", "nft", "list", "ruleset").check()
        return sum(int(found) for found in re.findall(rf'counter packets (\d+) bytes \d+ drop comment "{rule}', rules))

    def delivered(self, *places: str) -> int:
        """Return how many forged packets arrived there, where one counts what comes to a port that nobody has."""
        count = 0
        for name in places or ("shell2", "echo1"):
            rules = self.lab.exec(name, "cat", "/proc/net/snmp").check()
            udp = [line.split() for line in rules.splitlines() if line.startswith("Udp:")]
            count += int(udp[1][udp[0].index("NoPorts")])
        return count

    def mac_of(self, place: str, interface: str) -> str:
        """Return the MAC address of a node's or pod's interface."""
        return self.lab.exec(place, "cat", f"/sys/class/net/{interface}/address").check().strip()

    def good(self) -> None:
        """Check that allowed packets pass, within the node and across."""
        assert self.lab.ping("shell1", "shell2").lost == 0
        assert self.lab.ping("shell1", "echo1").lost == 0
