"""Which subnet is ours and which are our peers': allocation, renewal, claims, the watch and the table of leases.

Takes a registry and gives values; knows neither the kernel nor any backend. Imported by agent.agent alone.
"""
