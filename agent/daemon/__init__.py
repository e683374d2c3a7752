"""What any long-running process needs: log, service manager (stop signals, readiness), watchdog, pacing, memory.

Knows nothing of networks; every room above may import it.
"""
