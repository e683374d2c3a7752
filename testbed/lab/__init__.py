"""What runs inside a lab's namespaces: underlay, etcd, agents, the verbs' answers."""
