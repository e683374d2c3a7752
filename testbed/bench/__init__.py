"""`testbed bench`: the same measurements over every path between two nodes, in one lab and one run."""
