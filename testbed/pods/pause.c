/*
 * pause: the process that holds namespaces open and reaps orphans.
 *
 *   pause [--quiet]                    holds a pod's namespaces until TERM or INT, then exits 0
 *   pause --as PID                     the same as process PID, a child of its parent; says nothing
 *   pause --init FD -- CMD [ARG...]    PID 1 of a lab: runs CMD and ends with it
 *   pause -v                           prints the version
 *
 * As a pod it does what Kubernetes' pause does: one line on stderr and exit 0 on TERM and INT, every orphan reaped,
 * a warning when it is not PID 1 (--quiet: the pod does not share its process namespace, so it is not meant to be).
 *
 * As PID it takes the place of a process that was killed, so that the namespaces are still found by its number:
 * it makes that process and exits 0, or exits 1 because another one has the number.
 *
 * As a lab's init it starts CMD as its only own child, hands TERM and INT on to it, and ends with CMD's exit code
 * (128 + n after signal n): when PID 1 ends, the kernel kills whatever else is in its PID namespace. FD is the
 * lifeline, a pipe whose other end belongs to the process that starts the lab. The byte 'r' says that the lab is
 * ready and may outlive that process; an end of file before it says that the starter died, and the lab goes with it.
 *
 * All waiting is in poll() on a signalfd, so nothing here runs in a signal handler.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "0.1.0"
#endif

enum {
    EXIT_FAILURE_HERE = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
};

static const pid_t NO_CHILD = -1;

static void fail(const char *what)
{
    fprintf(stderr, "error: pause: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE_HERE);
}

static int usage(const char *what)
{
    fprintf(stderr,
            "error: pause: %s (want: pause [--quiet] | pause --as PID | pause --init FD -- CMD [ARG...] | pause -v)\n",
            what);
    return EXIT_USAGE;
}

/* Block TERM, INT and CHLD and return a descriptor that reads them; `before` gets the mask to restore in a child. */
static int open_signals(sigset_t *before)
{
    sigset_t watched;

    /* An inherited SIG_IGN would make the kernel reap CMD for us and lose its exit code. */
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &watched, before) < 0)
        fail("sigprocmask");
    int descriptor = signalfd(-1, &watched, SFD_CLOEXEC);
    if (descriptor < 0)
        fail("signalfd");
    return descriptor;
}

static int next_signal(int signals)
{
    struct signalfd_siginfo info;

    if (read(signals, &info, sizeof info) != (ssize_t)sizeof info)
        fail("read of a signal");
    return (int)info.ssi_signo;
}

/* Reap everything that has ended. True when `child` was among them; its wait status is then in `*status`. */
static int reap(pid_t child, int *status)
{
    int ended_status, child_ended = 0;
    pid_t ended;

    while ((ended = waitpid(-1, &ended_status, WNOHANG)) > 0) {
        if (ended == child) {
            *status = ended_status;
            child_ended = 1;
        }
    }
    return child_ended;
}

static int hold_a_pod(int quiet)
{
    int signals, status;

    if (getpid() != 1 && !quiet)
        fprintf(stderr, "Warning: pause should be the first process\n");
    signals = open_signals(NULL);
    for (;;) {
        int number = next_signal(signals);
        if (number == SIGCHLD) {
            reap(NO_CHILD, &status);
        } else {
            fprintf(stderr, "Shutting down, got signal: %s\n", strsignal(number));
            return 0;
        }
    }
}

/* Go on as process `number`; clone3(2), set_tid. */
static void become(pid_t number)
{
    struct clone_args how = {.flags = CLONE_PARENT, .set_tid = (uintptr_t)&number, .set_tid_size = 1};
    long child = syscall(SYS_clone3, &how, sizeof how);

    if (child < 0)
        fail("--as PID");
    if (child > 0)
        exit(0);
    setsid();
    /* Whoever reads what we say waits for its end. */
    dup2(STDOUT_FILENO, STDERR_FILENO);
}

static pid_t start_command(char **command, const sigset_t *mask)
{
    pid_t child = fork();

    if (child < 0)
        fail("fork");
    if (child > 0)
        return child;
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(command[0], command);
    fprintf(stderr, "error: pause: %s: %s\n", command[0], strerror(errno));
    _exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

/* Returns the descriptor to go on watching, or -1 once the lab is ready. Ends the program when the starter is gone. */
static int read_lifeline(int lifeline)
{
    char byte;
    ssize_t got = read(lifeline, &byte, 1);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return lifeline;
    if (got == 1 && byte == 'r') {
        close(lifeline);
        return -1;
    }
    if (got == 1)
        return lifeline;
    fprintf(stderr, "error: pause: the process that started the lab ended before the lab was ready\n");
    exit(EXIT_FAILURE_HERE);
}

static int run_as_init(int lifeline, char **command)
{
    sigset_t mask;
    int signals = open_signals(&mask), status = 0;

    if (fcntl(lifeline, F_SETFD, FD_CLOEXEC) < 0)
        fail("--init FD");
    pid_t child = start_command(command, &mask);
    for (;;) {
        /* poll() skips an entry whose descriptor is negative. */
        struct pollfd watched[] = {{.fd = signals, .events = POLLIN}, {.fd = lifeline, .events = POLLIN}};

        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            fail("poll");
        if (watched[1].revents)
            lifeline = read_lifeline(lifeline);
        if (!watched[0].revents)
            continue;
        int number = next_signal(signals);
        if (number != SIGCHLD)
            kill(child, number);
        else if (reap(child, &status))
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

/* The number that `text` is, from 0 to `most`; -1 if it is none. */
static long read_number(const char *text, long most)
{
    char *end;
    long number = strtol(text, &end, 10);

    return *text == '\0' || *end != '\0' || number < 0 || number > most ? -1 : number;
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return hold_a_pod(0);
    if (argc == 2 && strcmp(argv[1], "--quiet") == 0)
        return hold_a_pod(1);
    if (argc == 2 && argv[1][0] == '-' && tolower((unsigned char)argv[1][1]) == 'v' && argv[1][2] == '\0') {
        printf("pause %s\n", VERSION);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--as") == 0) {
        long number = read_number(argv[2], 1 << 22);
        if (number < 1)
            return usage("--as wants a process id");
        become((pid_t)number);
        return hold_a_pod(1);
    }
    if (strcmp(argv[1], "--init") != 0)
        return usage("unknown argument");
    if (argc < 5 || strcmp(argv[3], "--") != 0)
        return usage("--init lacks its command");

    long lifeline = read_number(argv[2], 1 << 20);
    if (lifeline < 0)
        return usage("--init wants a file descriptor");
    return run_as_init((int)lifeline, argv + 4);
}
