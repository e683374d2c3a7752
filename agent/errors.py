"""Everything the agent raises on purpose, named by what the caller does next.

AgentError
├── UsageError            flags or environment are wrong: report it, exit 2
├── InvalidConfig         the operator must change the network config; retrying the same bytes cannot help
├── NetlinkError          the kernel refused a read or a change: try again later, or report it
├── EnvironmentMissing    something is missing (root, a device, a program): name it, exit 3
├── RegistryError
│   ├── RegistryUnavailable   etcd did not answer in time: keep forwarding, retry with back-off
│   ├── RegistryDenied        etcd or TLS refused us: retrying will not help, exit 4 at start
│   ├── ConfigMissing         no network config in etcd yet: wait for it
│   └── Compacted             the watch asked for history that is gone: list again
├── SubnetTaken           another node created this key first: choose again
├── NoFreeSubnet          every subnet between SubnetMin and SubnetMax is leased: wait and retry
├── AddressTaken          another live node has our public address: wait until it is free
├── LeaseLost             our own key is gone: take it again if it is free, else fence
└── Fenced                a live etcd shows that another node owns our subnet: stop forwarding
"""


class AgentError(Exception):
    """Anything the agent raises on purpose."""


class UsageError(AgentError):
    """A flag or FLANNELD_* variable is wrong. Exit code 2."""


class InvalidConfig(AgentError):
    """The network config in etcd does not make sense; the operator must change it."""


class EnvironmentMissing(AgentError):
    """Something that the agent needs is missing on this machine. Exit code 3."""


class NetlinkError(AgentError):
    """The kernel refused a read or a change; the message is the command in words and the kernel's reason."""


class RegistryError(AgentError):
    """Any failure between us and etcd."""


class RegistryUnavailable(RegistryError):
    """etcd did not answer in time; keep forwarding, retry with back-off."""


class RegistryDenied(RegistryError):
    """etcd answered and refused (user, role), or TLS could not be set up. Exit code 4 at start."""


class ConfigMissing(RegistryError):
    """There is no network config in etcd yet."""


class Compacted(RegistryError):
    """The revision to watch from has been compacted; list again."""


class SubnetTaken(AgentError):
    """Another node created this key first; choose again and retry."""


class NoFreeSubnet(AgentError):
    """Every subnet between SubnetMin and SubnetMax is leased."""


class AddressTaken(AgentError):
    """Another live node has our public address, and so the subnet that would be ours; names both."""


class LeaseLost(AgentError):
    """Our own key is gone; take it again if it is free, else fence."""


class Fenced(AgentError):
    """A live etcd shows that another node owns our subnet."""
