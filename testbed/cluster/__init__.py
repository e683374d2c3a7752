"""From a cluster file to a checked plan: pure."""
