"""A lab's API server: the server for kubectl and Kubernetes' clients. A process inside the lab, so that it ends with
it, on a listening socket of the host's loopback. It sends the lab the same requests as our own verbs, over the same
control socket, and changes nothing else.

    resources    what is served, and under which paths
    derived      kinds that only this server has: EndpointSlice, ServiceAccount
    failure      errors as Kubernetes' Status
    store        objects with resource versions; what changed since one of them
    selection    label and field selectors
    tables       what kubectl prints
    patches      JSON, merge and strategic merge patches
    protobuf     the encoding of some requests
    documents    discovery and OpenAPI
    explained    what OpenAPI says about a field
    reviews      what a client may do
    objects      get, list, watch, create, replace, patch, delete
    subresources scale, eviction, logs
    streams      exec, on the lab's side
    remote       exec and port-forward over WebSockets
    spdy         the framing inside a port-forward
    server       HTTPS, who may come in, which request goes where

May import control, cluster and below; nothing imports it.
"""
