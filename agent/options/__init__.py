"""The agent's flags: one table, what a command line makes of it, and what the machine must offer before a start.

Below every room but daemon, lease and errors. Imported by what starts an agent or checks its flags.
"""
