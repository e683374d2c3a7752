"""The names of a cluster: its domain, the address that answers for it, and what every pod is told of both."""

from ipaddress import IPv4Address

CLUSTER_DOMAIN = "cluster.local"
NAMESPACE = "default"
"""Of every pod and Service: a lab has one."""
DNS_ADDRESS = IPv4Address("10.96.0.10")
"""Of the cluster's DNS, as kubeadm gives it; no Service may have it."""
RESOLV_CONF = f"""\
search {NAMESPACE}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}
nameserver {DNS_ADDRESS}
options ndots:5
"""
"""/etc/resolv.conf of a pod, as kubelet writes it for dnsPolicy ClusterFirst."""
