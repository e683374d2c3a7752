"""A lab's API server: what kubectl and Kubernetes' clients talk to.

A process inside the lab, so that it ends with it, on a listening socket of the loopback of the host. It asks the lab
the same questions as our own verbs do, over the same control socket, and changes nothing beside them.

    resources    what is served, and under which paths
    failure      errors as Kubernetes' Status
    store        objects with resource versions; what changed since one of them
    selection    label and field selectors
    tables       what kubectl prints
    patches      JSON, merge and strategic merge patches
    protobuf     the encoding of some requests
    documents    discovery and OpenAPI
    objects      get, list, watch, create, replace, patch, delete
    subresources scale, eviction, logs
    streams      exec, on the lab's side
    remote       exec and port-forward over WebSockets
    spdy         the framing inside a port-forward
    server       HTTPS, who may come in, which request goes where

May import control, cluster and below; nothing imports it.
"""
