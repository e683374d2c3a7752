"""Broken labs to be repaired: what is broken in each, and a judge who says whether all is well again."""
