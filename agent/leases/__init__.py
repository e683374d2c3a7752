"""Which subnet is ours and which are our peers': allocation, renewal, claims, the watch and the table of leases.

Takes a registry and returns values; independent of the kernel and of backends. Imported by agent.agent alone.
"""
