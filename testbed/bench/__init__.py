"""`testbed bench`: the same measurements through every way between two nodes, in one lab and one run."""
