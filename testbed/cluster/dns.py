"""The names of a cluster: its domain, the address that answers for it, and what every pod is told of both."""

from ipaddress import IPv4Address

CLUSTER_DOMAIN = "cluster.local"
DNS_ADDRESS = IPv4Address("10.96.0.10")
"""Of the cluster's DNS, as kubeadm gives it; no Service may have it."""


def resolv_conf(namespace: str) -> str:
    """Return /etc/resolv.conf of a pod in a namespace, as kubelet writes it for dnsPolicy ClusterFirst."""
    return (
        f"search {namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\n"
        f"nameserver {DNS_ADDRESS}\n"
        "options ndots:5\n"
    )
