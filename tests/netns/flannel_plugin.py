#!/usr/bin/python3
"""What flannel's CNI plugin does, for tests: Debian has the plugins that it calls, but not this one.

It reads subnet.env, makes the network config of another plugin of it (as a rule bridge with host-local), and runs that.
"""

import json
import os
import subprocess
import sys
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any


def delegate_of(config: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    """Return the config for the other plugin, as `delegateAdd` of flannel-io/cni-plugin makes it."""
    made: dict[str, Any] = {"type": "bridge", **config.get("delegate", {}), "name": config["name"]}
    made.setdefault("ipMasq", env["FLANNEL_IPMASQ"] != "true")
    made.setdefault("mtu", int(env["FLANNEL_MTU"]))
    if made["type"] == "bridge":
        made.setdefault("isGateway", True)
    subnet = IPv4Interface(env["FLANNEL_SUBNET"]).network
    made["ipam"] = {
        "type": "host-local",
        "ranges": [[{"subnet": str(subnet)}]],
        "routes": [{"dst": env["FLANNEL_NETWORK"]}],
    }
    return {**made, "cniVersion": config["cniVersion"]}


def main() -> int:
    """Obey CNI_COMMAND."""
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print('{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}')
        return 0
    config = json.load(sys.stdin)
    saved = Path(config.get("dataDir", "/var/lib/cni/flannel")) / os.environ["CNI_CONTAINERID"]
    if command == "ADD":
        lines = Path(config.get("subnetFile", "/run/flannel/subnet.env")).read_text().split()
        made = delegate_of(config, dict(line.split("=", 1) for line in lines))
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text(json.dumps(made))
    elif not saved.exists():
        return 0
    made = json.loads(saved.read_text())
    places = [Path(place) / made["type"] for place in os.environ["CNI_PATH"].split(":")]
    program = next(place for place in places if place.exists())
    done = subprocess.run([program], input=json.dumps(made), text=True, capture_output=True, check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if command == "DEL" and done.returncode == 0:
        saved.unlink()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
