"""A cluster's DNS settings: its domain, the server's address, and what pods get of both in resolv.conf."""

from ipaddress import IPv4Address

from testbed.cluster.manifest import PodManifest

CLUSTER_DOMAIN = "cluster.local"
DNS_ADDRESS = IPv4Address("10.96.0.10")
"""Address of the cluster's DNS, as with kubeadm; no Service may have it."""


def resolv_conf(namespace: str) -> str:
    """Return /etc/resolv.conf of a pod in a namespace, as kubelet writes it for dnsPolicy ClusterFirst."""
    return (
        f"search {namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\n"
        f"nameserver {DNS_ADDRESS}\n"
        "options ndots:5\n"
    )


def resolv_conf_of(pod: PodManifest, *, dns: bool) -> str:
    """Return /etc/resolv.conf of this pod; `dns`: whether the lab has a name server.

    As in Kubernetes, dnsConfig adds to the policy's own lines, and its options win.
    """
    config, policy = pod.spec.dns_config, pod.spec.dns_policy
    asks = dns and policy not in ("Default", "None")
    lines = resolv_conf(pod.metadata.namespace) if asks else ""
    if not (config.nameservers or config.searches or config.options):
        return lines
    found: dict[str, list[str]] = {"search": [], "nameserver": [], "options": []}
    for line in lines.splitlines():
        key, *words = line.split()
        found[key] += words
    found["nameserver"] += config.nameservers
    found["search"] += config.searches
    options = {word.partition(":")[0]: word for word in found["options"]}
    options |= {one.name: f"{one.name}:{one.value}" if one.value is not None else one.name for one in config.options}
    text = f"search {' '.join(dict.fromkeys(found['search']))}\n" if found["search"] else ""
    text += "".join(f"nameserver {address}\n" for address in dict.fromkeys(found["nameserver"]))
    return text + (f"options {' '.join(options.values())}\n" if options else "")
