"""The agent's flags: one table, the parser of its command line, and the requirements on the machine before a start.

Below every room but daemon, lease and errors. Imported by everything that starts an agent or checks its flags.
"""
