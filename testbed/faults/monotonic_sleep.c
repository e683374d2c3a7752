/*
 * Preloaded before libfaketime, for `testbed fault clock jump`.
 *
 * libfaketime 0.9.10 (Debian 12) reckons an absolute sleep by the monotonic clock as if it were by the wall clock, even
 * where it was told to leave the monotonic clock alone (its issue 426). The kernel then gets a negative time and says
 * EINVAL: Python's time.sleep fails, and with it every wait for a child process that is not over at once. Such sleeps
 * go to the kernel as they are here; those by other clocks go on to libfaketime.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef int sleeper(clockid_t, int, const struct timespec *, struct timespec *);

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *remain)
{
    int before = errno, result;
    sleeper *next = clock == CLOCK_MONOTONIC ? NULL : (sleeper *)dlsym(RTLD_NEXT, "clock_nanosleep");

    if (next != NULL)
        return next(clock, flags, request, remain);
    /* The error is the result here, and errno is left alone (POSIX). */
    result = syscall(SYS_clock_nanosleep, clock, flags, request, remain) == 0 ? 0 : errno;
    errno = before;
    return result;
}
