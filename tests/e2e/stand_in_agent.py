#!/usr/bin/env python3
"""Another program that takes flannel's flags and no other, as a user's own agent would. Behind them it calls ours.

In a cluster file: `agent: {command: [PYTHON, …/stand_in_agent.py, --ip-masq]}`.
"""

import argparse
import os
import sys
from pathlib import Path

ETCD = ("--etcd-endpoints", "--etcd-prefix", "--etcd-cafile", "--etcd-certfile", "--etcd-keyfile")
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Take the flags, say so in the log, become our agent."""
    flags = argparse.ArgumentParser(allow_abbrev=False)
    for name in (*ETCD, "--iface", "--subnet-file"):
        flags.add_argument(name)
    flags.add_argument("--ip-masq", action="store_true")
    flags.parse_args()
    print(f"stand-in agent with {' '.join(sys.argv[1:])}", flush=True)
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[1:]])


if __name__ == "__main__":
    main()
