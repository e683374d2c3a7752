"""What the agent may be asked for: one table of flags, the values they take, and what the machine must offer first.

Below every room but daemon, lease and errors; whoever starts an agent or checks its flags imports it.
"""
