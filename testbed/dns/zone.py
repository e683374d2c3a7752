"""Zone files and the server's config as text. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from testbed.cluster.dns import CLUSTER_DOMAIN
from testbed.dns.records import NAME_SERVER, Record

ROOT_ZONE = "root"
"""The name of its file."""
TTL_S = 5
"""How long an answer may be cached, as in CoreDNS; also the answer that a name does not exist."""
TIMERS_S = f"7200 1800 86400 {TTL_S}"
"""Of a secondary server, which does not exist, and of negative answers."""


def zone_file(zone: str, records: Iterable[Record], serial: int) -> str:
    """Return the zone as a master file (RFC 1035 §5)."""
    lines = [
        f"$TTL {TTL_S}",
        f"{zone}. SOA {NAME_SERVER}. hostmaster.{zone}. {serial} {TIMERS_S}",
        f"{zone}. NS {NAME_SERVER}.",
        *(f"{record.name}. {record.type} {record.data}" for record in records),
    ]
    return "\n".join(lines) + "\n"


def root_file() -> str:
    """Return the root zone, which is empty: a name in no other zone does not exist, and that is the answer.

    Refusing the query would not be one: the C library treats it as a temporary failure, and musl's retries until its
    timeout.
    """
    return "\n".join(
        (
            f"$TTL {TTL_S}",
            f". SOA {NAME_SERVER}. hostmaster.{CLUSTER_DOMAIN}. 1 {TIMERS_S}",
            f". NS {NAME_SERVER}.",
            "",
        )
    )


def server_config(zones: Sequence[str], address: IPv4Address, directory: Path) -> str:
    """Return knot.conf: these zones, and the root's.

    One thread for each kind of work. Zone files are read whole at each reload; the journal, in which knot would keep
    differences, stays empty.
    """
    return f"""\
server:
    rundir: "{directory}"
    pidfile: "knot.pid"
    listen: {address}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    identity: ""
    version: ""
control:
    listen: "knot.sock"
database:
    storage: "{directory}/database"
    journal-db-max-size: 1M
log:
  - target: stderr
    any: warning
template:
  - id: default
    storage: "{directory}"
    file: "%s.zone"
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: .
    file: "{ROOT_ZONE}.zone"
""" + "".join(f"  - domain: {zone}\n" for zone in zones)
