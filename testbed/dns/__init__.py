"""The DNS names of Services and pods."""
