/* Adaptive busy polling: whether to spin for a while before sleeping.
 *
 * Waking a thread on a sleeping virtual core takes 50 us; a spinning thread is ready at once. The level rises while
 * packets follow each other quickly, and falls when spinning was in vain. On a core that other tasks need, spinning is
 * wrong: a spinning thread uses up its time slice and queues behind them, a sleeping one is woken before them. So a
 * long yield makes it back off: briefly at first, because a short task on a quiet machine causes the same, then
 * longer. */

struct busy_poll {
    int level;
    bool spinning;
    uint64_t empty_since_ns; /* 0: not empty at the last check */
    uint64_t back_off_ns;    /* the last back_off, decayed */
    uint64_t back_off_until_ns;
    uint64_t window_ns;  /* when it began */
    unsigned counted[2]; /* packets since, out and in; a ping-pong has half of each */
    bool streaming;      /* many packets in the last window */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Packets were found. */
static void packets_came(struct busy_poll *poll, unsigned out, unsigned in)
{
    poll->counted[0] += out;
    poll->counted[1] += in;
    if (poll->spinning) {
        poll->level += poll->level < SPIN_LEVEL_MAX;
        poll->back_off_ns -= poll->back_off_ns / BACK_OFF_DECAY;
    }
    poll->spinning = false;
    poll->empty_since_ns = 0;
}

static void back_off(struct busy_poll *poll, uint64_t now)
{
    poll->level = 0;
    poll->back_off_ns = poll->back_off_ns < BACK_OFF_MIN_NS ? BACK_OFF_MIN_NS : 2 * poll->back_off_ns;
    if (poll->back_off_ns > BACK_OFF_MAX_NS)
        poll->back_off_ns = BACK_OFF_MAX_NS;
    poll->back_off_until_ns = now + poll->back_off_ns;
}

/* Nothing was found. Returns whether packets arrive so fast that they should gather: waking up or polling for each
 * would cost more than carrying it. TCP super-packets are never that fast. */
static bool should_gather(struct busy_poll *poll)
{
    uint64_t now = now_ns(), passed = now - poll->window_ns;
    if (passed >= RATE_WINDOW_NS) {
        unsigned most = poll->counted[0] > poll->counted[1] ? poll->counted[0] : poll->counted[1];
        poll->streaming = most >= STREAM_PACKETS * (passed / RATE_WINDOW_NS);
        poll->counted[0] = poll->counted[1] = 0;
        poll->window_ns = now;
    }
    return poll->streaming;
}

/* Nothing was found. True: poll again, other tasks on this core had their turn; false: sleep, then `woke_up`. */
static bool should_spin(struct busy_poll *poll)
{
    uint64_t now = now_ns();
    if (poll->empty_since_ns == 0)
        poll->empty_since_ns = now;
    if (poll->level < SPIN_LEVEL || now < poll->back_off_until_ns)
        return false;
    if (now - poll->empty_since_ns > SPIN_LIMIT_NS) {
        poll->level -= 2; /* spinning was in vain */
        return false;
    }
    poll->spinning = true;
    sched_yield();
    if (now_ns() - now > LONG_YIELD_NS) {
        back_off(poll, now);
        return false;
    }
    return true;
}

static void woke_up(struct busy_poll *poll)
{
    bool soon = now_ns() - poll->empty_since_ns < SOON_NS;
    poll->level = soon ? poll->level + (poll->level < SPIN_LEVEL_MAX) : poll->level / 2;
    poll->spinning = false;
    poll->empty_since_ns = 0;
}
