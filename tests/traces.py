"""Traces that labs once answered, with the picture's facts of the same lab, and one as with wireguard."""

import json
import struct
from pathlib import Path
from typing import Any

from testbed.capture.headers import Encapsulation
from testbed.capture.layers import layers_of
from testbed.trace.hops import layers_json
from tests.packets import ipv4, udp

RECORDED = Path(__file__).parent / "vectors" / "traces"
WIREGUARD = Encapsulation("none", sealed_ports=(51820,))
Object = dict[str, Any]


def recorded(backend: str) -> Object:
    """Return `trace` (nginx → tomcat:8080, TCP) and `graph` of the cluster nginx_tomcat with this backend."""
    if backend == "wireguard":
        return as_with_wireguard(recorded("udp"))
    found: Object = json.loads((RECORDED / f"{backend}.json").read_text())
    return found


def as_with_wireguard(answer: Object) -> Object:
    """Return the same with WireGuard's datagrams around its packets, as its whitepaper (§5.4.6) has them.

    They are made, and not recorded: kernels for tests may have no wireguard.
    """
    for counter, hop in enumerate(answer["trace"]["hops"]):
        if hop["interface"] == "flannel0":
            hop["interface"] = "flannel-wg"
            hop["where"] = f"{hop['node']} flannel-wg"
        if hop["outer"] is None:
            continue
        padded = -(-hop["inner"]["length"] // 16) * 16
        sealed = struct.pack("<IIQ", 4, 0x2A51, 3 + counter // 12) + bytes((7 * at) & 0xFF for at in range(padded + 16))
        packet = ipv4(hop["outer"]["src"], hop["outer"]["dst"], udp(51820, 51820, sealed))
        frame = bytes.fromhex(hop["frame"]["hex"])[:14] + packet
        layers = layers_json(layers_of(frame, 14, WIREGUARD))
        hop["frame"] = {"length": len(frame), "hex": frame.hex(), "layers": layers}
        hop["outer"] |= {"sport": 51820, "dport": 51820, "length": len(packet)}
    for node in answer["graph"]["nodes"]:
        node |= {"backend": "wireguard", "device": "flannel-wg"}
        node["overlay"] |= {"name": "flannel-wg", "kind": "wireguard", "mtu": 1420}
    return answer
