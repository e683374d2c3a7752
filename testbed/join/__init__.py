"""`testbed join`: this machine as a node of an existing cluster, and the checks before it joins."""
