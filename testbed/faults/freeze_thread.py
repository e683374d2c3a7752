"""A program that holds one thread of another process still: `freeze_thread.py TID`.

SIGSTOP stops all threads of a process; a debugger's hold (ptrace) stops one. It prints "held" once the thread is
stopped, holds it until this program is killed (the kernel then resumes the thread), and ends with the thread's process.
"""

import ctypes
import os
import sys

# include/uapi/linux/ptrace.h and wait.h
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000


def main() -> int:
    """Hold the thread; return 0 when it has ended, 1 if it cannot be held."""
    thread = int(sys.argv[1])
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    ptrace.restype = ctypes.c_long
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if ptrace(request, thread, None, None) < 0:
            print(os.strerror(ctypes.get_errno()), flush=True)
            return 1
    while True:
        _, status = os.waitpid(thread, WALL)
        if not os.WIFSTOPPED(status):
            return 0
        print("held", flush=True)


if __name__ == "__main__":
    sys.exit(main())
