"""Workloads in kubectl users' terms: desired state, actual state, and the controllers that reconcile the two."""
