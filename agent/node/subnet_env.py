"""subnet.env and docker_opts.env, which give our subnet to other programs of the node (dockerd, the CNI plugin).

Lines and order are flannel's; the reader accepts what flannel's dotenv reader does (quotes, `export`, comments, CRLF).
"""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import TypeVar

from agent.errors import EnvironmentMissing
from agent.lease import Subnet

T = TypeVar("T", IPv4Network, IPv6Network)

LARGEST_BYTES = 64 * 1024
"""More than any subnet.env; a larger file is something else."""

LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*[=:]\s*
        (?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s\#"']*))\s*(?:\#.*)?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """The content of the files."""

    network: IPv4Network
    subnet: Subnet
    overlay_mtu: int
    """Bytes."""
    ip_masq: bool
    """Whether we masquerade, so that dockerd and the CNI plugin must not."""
    ipv6_network: IPv6Network | None = None


def render_subnet_env(env: SubnetEnv) -> str:
    """Render subnet.env."""
    # The first usable address, not the base: dockerd's bridge takes it as its own.
    lines = [f"FLANNEL_NETWORK={env.network}", f"FLANNEL_SUBNET={first_address(env.subnet.ipv4)}"]
    if env.ipv6_network is not None and env.subnet.ipv6 is not None:
        lines += [f"FLANNEL_IPV6_NETWORK={env.ipv6_network}", f"FLANNEL_IPV6_SUBNET={first_address(env.subnet.ipv6)}"]
    lines += [f"FLANNEL_MTU={env.overlay_mtu}", f"FLANNEL_IPMASQ={'true' if env.ip_masq else 'false'}"]
    return "\n".join(lines) + "\n"


def render_docker_opts(env: SubnetEnv) -> str:
    """Render docker_opts.env as flannel's mk-docker-opts.sh writes it: single options, then all in one."""
    options = {
        "BIP": f"--bip={first_address(env.subnet.ipv4)}",
        "IPMASQ": f"--ip-masq={'false' if env.ip_masq else 'true'}",
        "MTU": f"--mtu={env.overlay_mtu}",
    }
    lines = [f'DOCKER_OPT_{name}="{option}"' for name, option in options.items()]
    return "\n".join([*lines, f'DOCKER_OPTS=" {" ".join(options.values())}"']) + "\n"


def write_subnet_env(path: Path, env: SubnetEnv) -> None:
    """Replace subnet.env atomically and durably. Raises EnvironmentMissing with the path and the cause."""
    replace_file(path, render_subnet_env(env))


def write_docker_opts(path: Path, env: SubnetEnv) -> None:
    """Replace docker_opts.env atomically and durably. Raises EnvironmentMissing with the path and the cause."""
    replace_file(path, render_docker_opts(env))


def read_previous_subnet(path: Path) -> tuple[Subnet | None, str | None]:
    """Return the subnet that a previous run left in subnet.env, and a warning if the file exists but is unusable.

    Never raises: a bad file means that there is no previous subnet.
    """
    try:
        text = _read(path)
        if text is None:
            return None, None
        values = _values(text)
        ipv4 = _only_network(values, "FLANNEL_SUBNET", lambda cidr: IPv4Network(cidr, strict=False))
        if ipv4 is None:
            raise ValueError("no line FLANNEL_SUBNET=…")
        ipv6 = _only_network(values, "FLANNEL_IPV6_SUBNET", lambda cidr: IPv6Network(cidr, strict=False))
    except OSError as error:
        return None, f"{path}: {error.strerror}; there is no previous subnet"
    except ValueError as error:
        return None, f"{path}: {error}; there is no previous subnet"
    return Subnet(ipv4, ipv6), None


def read_env(path: Path) -> SubnetEnv | None:
    """Read a whole subnet.env; None if it is missing or unusable. Never raises."""
    subnet, _ = read_previous_subnet(path)
    if subnet is None:
        return None
    try:
        values = read_values(path)
        network = IPv4Network(values["FLANNEL_NETWORK"], strict=False)
        ipv6_network = values.get("FLANNEL_IPV6_NETWORK")
        return SubnetEnv(
            network=network,
            subnet=subnet,
            overlay_mtu=int(values["FLANNEL_MTU"]),
            ip_masq=values["FLANNEL_IPMASQ"] == "true",
            ipv6_network=None if ipv6_network is None else IPv6Network(ipv6_network, strict=False),
        )
    except (OSError, ValueError, KeyError):
        return None


def read_values(path: Path) -> dict[str, str]:
    """Read every NAME=value of a subnet.env. Raises OSError, and ValueError with the problem and its line."""
    text = _read(path)
    if text is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return {name: value for name, (_, value) in _values(text).items()}


def first_address(network: IPv4Network | IPv6Network) -> IPv4Interface | IPv6Interface:
    """Return the first usable address of a node's subnet: its bridge's."""
    if isinstance(network, IPv4Network):
        return IPv4Interface((network.network_address + 1, network.prefixlen))
    return IPv6Interface((network.network_address + 1, network.prefixlen))


def _read(path: Path) -> str | None:
    """Return the file's text; None if it does not exist. Raises OSError or ValueError."""
    try:
        # Non-blocking: it might be a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("is a symbolic link, which is not followed") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a regular file")
        content = os.read(descriptor, LARGEST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"is larger than {LARGEST_BYTES} bytes")
    if not content.strip():
        raise ValueError("is empty")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at offset {error.start}") from None


def _values(text: str) -> dict[str, tuple[int, str]]:
    """Map each name to its line number and value. Raises ValueError that names the line."""
    values: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise ValueError(f"line {number} is not NAME=value (got {line[:60]!r})")
        name = match["name"]
        value = next(match[kind] for kind in ("double", "single", "bare") if match[kind] is not None)
        if name in values and values[name][1] != value:
            raise ValueError(f"line {number}: {name} was {values[name][1]!r} on line {values[name][0]}")
        values[name] = (number, value)
    return values


def _only_network(values: dict[str, tuple[int, str]], name: str, parse: Callable[[str], T]) -> T | None:
    """Return the only network of a comma-separated list, as flannel reads it: bad entries are skipped, two good ones
    count as none.

    Returns None if the name is missing. Raises ValueError that names the line.
    """
    if name not in values:
        return None
    number, text = values[name]
    networks = []
    for entry in text.split(","):
        # ip_network would parse a bare address as a /32; a subnet always has its length.
        if "/" in entry:
            try:
                network = parse(entry.strip())
            except ValueError:
                continue
            # A single address leaves none for the bridge, and the last of all has no next one.
            if network.num_addresses > 1:
                networks.append(network)
    if len(networks) != 1:
        found = "no subnet" if not networks else f"{len(networks)} subnets"
        raise ValueError(f"line {number}: {found} in {name} (got {text[:60]!r}; want one such as 10.1.74.1/24)")
    return networks[0]


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically and durably. Raises EnvironmentMissing with the path and the cause."""
    temporary: str | None = None
    try:
        _make_directories(path.parent)
        if path.is_symlink():
            raise EnvironmentMissing(f"{path}: is a symbolic link, which is not followed")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # Readable by other users, whatever the umask.
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise EnvironmentMissing(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _make_directories(path: Path) -> None:
    """Create directories like `mkdir -p` with mode 0755 whatever the umask, which only new directories get."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
