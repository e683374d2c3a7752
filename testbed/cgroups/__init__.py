"""Control groups of containers: limits of memory and CPU, in versions 1 and 2 of the kernel's interface."""
