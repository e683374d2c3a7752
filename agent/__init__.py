"""The overlay agent: a peer of flanneld that leases a subnet in etcd and carries pods' packets between nodes."""
