"""What any long-running process needs: log, stop signal, watchdog, pacing, the service manager's protocol.

Knows nothing of networks; every room above may import it.
"""
