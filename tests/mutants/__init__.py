"""Agents in which one thing is broken, to see that the tests of faults notice."""
