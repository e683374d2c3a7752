"""Workloads as kubectl users know them: what is wanted, what there is, and what brings the two together."""
