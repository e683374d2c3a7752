"""Control groups of containers: memory and CPU that they may use, on version 1 and 2 of the kernel's interface."""
