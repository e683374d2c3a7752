"""Packets on a bridge must pass the node's packet filter: only there is a pod's answer turned round that goes to a pod
beside it as the answer of a Service.

The kernel does so in every namespace once it has br_netfilter. Where that is a module, loading it changes the host too,
so the host's own values are put back.
"""

import subprocess
from pathlib import Path

SETTINGS = Path("/proc/sys/net/bridge")
CALLS = ("bridge-nf-call-arptables", "bridge-nf-call-ip6tables", "bridge-nf-call-iptables")


def provide(settings: Path = SETTINGS) -> str:
    """Make sure that the kernel can do it; returns what is missing in a line, empty when nothing is."""
    if settings.is_dir():
        return ""
    done = subprocess.run(["modprobe", "br_netfilter"], capture_output=True, text=True, check=False)
    if not settings.is_dir():
        why = done.stderr.strip().splitlines()
        got = why[0] if why else "no /proc/sys/net/bridge"
        return f"environment: this kernel cannot filter on bridges, which Services need (got {got}; want br_netfilter)"
    for name in CALLS:
        (settings / name).write_text("0\n")
    return ""
