"""`testbed join`: this machine as a node of somebody's cluster, and what it found out before."""
