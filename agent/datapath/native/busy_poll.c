/* Adaptive busy polling: whether to spin for a while before sleeping.
 *
 * Waking a thread on a sleeping core takes 50 us where cores are virtual; a thread that spins is there already. The level
 * rises while packets follow each other soon, and falls when spinning brought nothing. On a core that others have work
 * for, spinning is wrong: who spins uses up its turn and queues behind them, who sleeps is woken before them. So a long
 * yield makes it back off: for a short time at first, because a passing task on a quiet machine does the same, and for
 * longer each time. */

struct busy_poll {
    int level;
    bool spinning;
    uint64_t empty_since_ns; /* 0: not empty at the last look */
    uint64_t back_off_ns;    /* the last back_off, faded */
    uint64_t back_off_until_ns;
    uint64_t window_ns;  /* when it began */
    unsigned counted[2]; /* packets since, out and in: those of a ping-pong, however fast, are half each */
    bool streaming;      /* there were many in the last one */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* There was something. */
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

/* There was nothing. Whether packets come so fast that it is better to let some gather: to be woke_up for each, or to look
 * for it, would cost more than to carry it. Super-packets of TCP never come so fast. */
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

/* There was nothing. True: look again, others who want this core had their turn; false: sleep, then `woke_up`. */
static bool should_spin(struct busy_poll *poll)
{
    uint64_t now = now_ns();
    if (poll->empty_since_ns == 0)
        poll->empty_since_ns = now;
    if (poll->level < SPIN_LEVEL || now < poll->back_off_until_ns)
        return false;
    if (now - poll->empty_since_ns > SPIN_LIMIT_NS) {
        poll->level -= 2; /* spinning brought nothing */
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
