"""Everything that runs inside a lab's namespaces: underlay, etcd, agents."""
