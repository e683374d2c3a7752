"""What any long-running process needs: log, service manager (stop signals, readiness), watchdog, pacing, memory.

Contains nothing about networks; every room above may import it.
"""
