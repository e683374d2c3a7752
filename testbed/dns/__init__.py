"""Names of Services and pods, answered at each node."""
