#!/bin/sh
# Another etcd than that on PATH, for `etcd: {program: …}`: it says so in its log, and is Debian's from then on.
echo "another etcd with $# flags"
exec etcd "$@"
