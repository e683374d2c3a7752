"""What an agent keeps up on its machine beside the backend: bridge, rules, files, health server, warnings.

Imported by assembly and agent; testbed takes subnet.env's format from here.
"""
