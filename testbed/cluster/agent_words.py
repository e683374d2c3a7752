"""The command line of a foreign agent: flannel's flags appended, or values where it names them. Pure.

command: [/opt/flanneld, --ip-masq]                         flannel's flags are appended
command: [/opt/mine, "--store={etcd}", --dev, "{iface}"]    nothing is appended: it defines where values go
"""

import re
from collections.abc import Iterator, Mapping, Sequence

FLANNELS_PREFIX = "/coreos.com/network"
PLACEHOLDERS: Mapping[str, str] = {
    "etcd": "etcd's endpoints, separated by commas: https://192.168.8.11:2379",
    "etcd_prefix": "what the lab's keys in etcd begin with: /coreos.com/network",
    "etcd_ca": "file of the authority that signed etcd's certificate",
    "etcd_cert": "file of the agent's own certificate for etcd",
    "etcd_key": "file of its key",
    "iface": "the node's interface on the underlay: node1-eth0",
    "address": "the node's address on the underlay: 192.168.8.101",
    "node": "the node's name: node1",
    "subnet_file": "where the agent must write its subnet, in flannel's form: /run/flannel/subnet.env",
}
"""Names that a word of the command may contain in braces → their meaning."""
NEED_TLS = ("etcd_ca", "etcd_cert", "etcd_key")
_NAMED = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]+)\}")
"""Doubled braces are literal; anything else in braces (JSON, say) is left alone."""


def named(command: Sequence[str]) -> list[str]:
    """Return the names in braces, in order, including unknown ones."""
    return [match[2] for word in command for match in _NAMED.finditer(word) if match[2]]


def agent_words(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the command line: names in braces replaced, or flannel's flags appended to a command without any."""
    if named(command):
        return [_NAMED.sub(lambda match: values[match[2]] if match[2] else f"{{{match[1]}}}", word) for word in command]
    return [*(_NAMED.sub(r"{\1}", word) for word in command), *flannel_flags(values)]


def flannel_flags(values: Mapping[str, str]) -> Iterator[str]:
    """Yield the flags that a lab's flannel needs; those for TLS only if there is a certificate."""
    yield f"--etcd-endpoints={values['etcd']}"
    if values["etcd_prefix"] != FLANNELS_PREFIX:
        yield f"--etcd-prefix={values['etcd_prefix']}"
    yield f"--iface={values['iface']}"
    yield f"--subnet-file={values['subnet_file']}"
    if values["etcd_ca"]:
        yield f"--etcd-cafile={values['etcd_ca']}"
        yield f"--etcd-certfile={values['etcd_cert']}"
        yield f"--etcd-keyfile={values['etcd_key']}"
