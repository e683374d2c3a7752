"""The starter file of `testbed init`. A test reads it as it is, and once more with every commented line enabled."""

STARTER = """\
# A cluster for `testbed up lab.yaml`. Only `nodes` is required; `testbed validate --show-defaults lab.yaml` prints the
# defaults of everything else. Lines that begin with "#:" are examples: remove the "#:" to use one.

#:metadata: {name: my-lab}                     # the lab's name
nodes: [node1, node2]                        # the short form; the long one is a mapping:
#:nodes:
#:  node1: {ip: 192.168.8.21, subnet: 10.0.46.0/24}   # an address of its own; a subnet that its agent always gets
#:  node2: {}

# flannel's network config, written to etcd as it is. Backends: udp, vxlan, host-gw, ipip, wireguard, alloc, extension
#:network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: vxlan}}

# The network between the nodes. `testbed topologies` lists topologies; or list switches and links one by one.
#:underlay: {cidr: 192.168.8.0/24, topology: single, mtu: 1500}

#:etcd: {members: 3}                           # 1 or 3

# More flags for our agent, or `command:` for an agent of your own (docs/own-project.md)
#:agent: {args: [--subnet-lease-ttl=60s]}

# Kubernetes manifests, each after a line of three dashes. Kinds: Pod, ReplicaSet, Deployment, DaemonSet, Service,
# ConfigMap, Secret, Namespace, NetworkPolicy. Images are recipes of the testbed: shell (the machine's tools), echo
# (HTTP and UDP on 8080), nginx, tomcat, httpd, busybox, alpine, netshoot, agnhost, serve-hostname, echoserver, curl,
# pause.
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers: [{name: echo, image: echo, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}                       # shell reaches it as http://echo/
spec:
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
#:  nodeName: node1                            # left out: the node with the fewest pods
  containers: [{name: shell, image: shell}]
"""
