"""What an agent maintains on its machine beside the backend: bridge, rules, files, health server, warnings.

Imported by assembly and agent; testbed takes the format of subnet.env from here.
"""
