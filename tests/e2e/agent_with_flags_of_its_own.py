#!/usr/bin/env python3
"""An agent that takes none of flannel's flags and whose overlay device has a name of its own. It runs ours inside.

In a cluster file: `agent: {command: [PYTHON, …/agent_with_flags_of_its_own.py, "--store={etcd}", …]}`.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Take the flags, become our agent."""
    flags = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--store", "--authority", "--certificate", "--key", "--device", "--me", "--write"):
        flags.add_argument(name, required=True)
    given = flags.parse_args()
    print(f"own agent of {given.me}", flush=True)
    etcd = (
        f"--etcd-endpoints={given.store}",
        f"--etcd-cafile={given.authority}",
        f"--etcd-certfile={given.certificate}",
    )
    rest = (f"--etcd-keyfile={given.key}", f"--iface={given.device}", f"--subnet-file={given.write}", "--ip-masq")
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "agent", *etcd, *rest])


if __name__ == "__main__":
    main()
