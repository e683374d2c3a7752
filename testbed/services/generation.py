"""The number that the kernel raises with every change of a namespace's nftables rules, of any process's namespace."""

from agent.kernel import nftables as nftables_generation
from testbed.processes.namespaces import in_network_of


def generation(pid: int) -> int:
    """The generation of the rules in the network namespace of process `pid`. Raises OSError."""
    return in_network_of(pid, nftables_generation.generation)
