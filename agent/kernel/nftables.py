"""The number that the kernel raises with every change of a namespace's nftables rules, whoever makes it.

Reading it costs one small netlink message, so that a table can be watched without being listed
(linux/netfilter/nf_tables.h: NFT_MSG_GETGEN, NFTA_GEN_ID).
"""

import socket
import struct

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_GETGEN = 16
NFTA_GEN_ID = 1
NLM_F_REQUEST = 1
NLMSG_HEADER = struct.Struct("=IHHII")
NFGEN_HEADER = struct.Struct(">BBH")
ATTRIBUTE_HEADER = struct.Struct("=HH")
TIMEOUT_S = 2.0


def generation() -> int:
    """The generation of the rules in the caller's network namespace. Raises OSError."""
    body = NFGEN_HEADER.pack(socket.AF_UNSPEC, 0, 0)
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
    message = NLMSG_HEADER.pack(NLMSG_HEADER.size + len(body), kind, NLM_F_REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(TIMEOUT_S)
        netlink.sendto(message, (0, 0))
        return read_generation(netlink.recv(4096))


def read_generation(answer: bytes) -> int:
    """The generation in the kernel's answer. Raises OSError where it is none."""
    offset = NLMSG_HEADER.size + NFGEN_HEADER.size
    while offset + ATTRIBUTE_HEADER.size <= len(answer):
        length, kind = ATTRIBUTE_HEADER.unpack_from(answer, offset)
        if kind == NFTA_GEN_ID and length == ATTRIBUTE_HEADER.size + 4:
            return int(struct.unpack_from(">I", answer, offset + ATTRIBUTE_HEADER.size)[0])
        offset += max(ATTRIBUTE_HEADER.size, (length + 3) & ~3)
    raise OSError("the kernel does not tell the generation of its rules")
