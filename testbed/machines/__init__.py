"""Machines of one network without a lab: each runs the agent by itself, and what they share is in etcd."""
