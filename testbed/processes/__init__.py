"""Processes that a lab starts, and how they are started."""
