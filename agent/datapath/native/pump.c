/* The two threads, how rules are replaced under them, and their counters. */

/* A direction's counters for other threads: `version` is odd during writes. */
struct published {
    _Atomic unsigned version;
    _Atomic uint64_t values[sizeof(struct native_counters) / sizeof(uint64_t)];
};

struct native_pump {
    _Atomic bool stopping;
    _Atomic bool helper_owns_rx;           /* UDP -> TUN belongs to the helper */
    int mover_wakeup_fd, helper_wakeup_fd; /* eventfds: check the two above */
    _Atomic(const native_rules *) rules;
    _Atomic(const native_rules *) out_uses; /* NULL while that thread sleeps */
    _Atomic(const native_rules *) in_uses;
    struct published out_counters, in_counters;
    uint64_t out_read_errors; /* that are published */
    struct outbound out;
    struct inbound in;
    uint8_t read_room[READ_ROOM];
    uint8_t receive_room[RECEIVES_PER_CALL][MAX_PACKET + 1];
};

native_pump *native_pump_new(int tun, int udp, const struct native_offloads *offloads, native_rules *rules)
{
    native_pump *pump = calloc(1, sizeof *pump);
    if (pump == NULL)
        return NULL;
    pump->mover_wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pump->helper_wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pump->mover_wakeup_fd < 0 || pump->helper_wakeup_fd < 0) {
        native_pump_free(pump);
        return NULL;
    }
    pump->rules = rules;
    pump->out.outlet = pump->in.outlet = (struct outlet){
        .tun = tun, .udp = udp, .offloads = *offloads, .to = &TO_KERNEL};
    pump->out.answers.rate_per_s = ANSWERS_PER_S; /* the first reading of the clock fills the bucket */
    return pump;
}

void native_pump_free(native_pump *pump)
{
    if (pump == NULL)
        return;
    native_rules_free((native_rules *)pump->rules);
    if (pump->mover_wakeup_fd >= 0)
        close(pump->mover_wakeup_fd);
    if (pump->helper_wakeup_fd >= 0)
        close(pump->helper_wakeup_fd);
    free(pump);
}

/* Takes the current rules; they are not freed before `leave`. Announce, then read again: either the replacer sees the
 * announcement, or we see its new rules. */
static const native_rules *enter(native_pump *pump, _Atomic(const native_rules *) *uses)
{
    const native_rules *rules;
    do {
        rules = atomic_load(&pump->rules);
        atomic_store(uses, rules);
    } while (rules != atomic_load(&pump->rules));
    return rules;
}

static void leave(_Atomic(const native_rules *) *uses)
{
    atomic_store_explicit(uses, NULL, memory_order_release);
}

void native_pump_replace(native_pump *pump, native_rules *rules)
{
    const native_rules *old = atomic_exchange(&pump->rules, rules);
    const struct timespec moment = {.tv_nsec = 20000};
    while (atomic_load(&pump->out_uses) == old || atomic_load(&pump->in_uses) == old)
        nanosleep(&moment, NULL); /* a round of packets takes microseconds and never blocks */
    native_rules_free((native_rules *)old);
}

static void publish(struct published *published, const struct native_counters *counters)
{
    uint64_t values[sizeof *counters / sizeof(uint64_t)];
    memcpy(values, counters, sizeof values);
    unsigned version = atomic_load_explicit(&published->version, memory_order_relaxed);
    atomic_store_explicit(&published->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        atomic_store_explicit(&published->values[i], values[i], memory_order_relaxed);
    atomic_store_explicit(&published->version, version + 2, memory_order_release);
}

static void add_published(struct published *published, uint64_t *total)
{
    uint64_t values[sizeof(struct native_counters) / sizeof(uint64_t)];
    unsigned before, after;
    do {
        before = atomic_load_explicit(&published->version, memory_order_acquire);
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            values[i] = atomic_load_explicit(&published->values[i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&published->version, memory_order_relaxed);
    } while (before != after || before % 2 != 0);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        total[i] += values[i];
}

void native_pump_counters(native_pump *pump, struct native_counters *counters)
{
    uint64_t total[sizeof *counters / sizeof(uint64_t)] = {0};
    add_published(&pump->out_counters, total);
    add_published(&pump->in_counters, total);
    memcpy(counters, total, sizeof total);
}

static void wake(int wakeup)
{
    const uint64_t once = 1;
    ssize_t written = write(wakeup, &once, sizeof once); /* fails only if it is already signalled */
    (void)written;
}

static void clear_wakeup(int wakeup)
{
    uint64_t times;
    ssize_t size = read(wakeup, &times, sizeof times);
    (void)size;
}

void native_pump_stop(native_pump *pump)
{
    atomic_store(&pump->stopping, true);
    wake(pump->mover_wakeup_fd);
    wake(pump->helper_wakeup_fd);
}

/* Reads until nothing is left, or READS_PER_ROUND packets; returns their number. `alone`: nothing was found before. */
static int carry_out_round(native_pump *pump, bool alone)
{
    struct outbound *out = &pump->out;
    size_t used = 0;
    bool more = true;
    int packets = 0;
    out->rules = enter(pump, &pump->out_uses);
    for (int i = 0; i < READS_PER_ROUND && more && !out->outlet.device_gone; i++) {
        if (used + READ_SIZE > READ_ROOM) {
            flush_batch(out);
            used = 0;
        }
        ssize_t size = read(out->outlet.tun, pump->read_room + used, READ_SIZE);
        if (size >= 0) {
            out_packet(out, pump->read_room + used, (size_t)size);
            used += ((size_t)size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
            packets++;
            /* It may be sent alone: it does not wait for others. */
            if (i == 0 && alone) {
                flush_batch(out);
                used = 0;
            }
        } else if (errno == EAGAIN) {
            more = false;
        } else if (errno == EBADFD || errno == EBADF) {
            out->outlet.device_gone = true;
        } else if (errno != EINTR) {
            out->counters.drops[TUN_READ]++;
            more = false;
        }
    }
    flush_batch(out);
    leave(&pump->out_uses);
    if (packets > 0 || out->counters.drops[TUN_READ] != pump->out_read_errors)
        publish(&pump->out_counters, &out->counters);
    pump->out_read_errors = out->counters.drops[TUN_READ];
    return packets;
}

struct receive {
    struct mmsghdr messages[RECEIVES_PER_CALL];
    struct iovec parts[RECEIVES_PER_CALL];
    struct sockaddr_in from[RECEIVES_PER_CALL];
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control[RECEIVES_PER_CALL];
};

static size_t gro_size(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(part), sizeof size);
            return size > 0 ? (size_t)size : 0;
        }
    }
    return 0;
}

/* Receives once; returns the number of messages. */
static int carry_in_round(native_pump *pump, struct receive *receive)
{
    struct inbound *in = &pump->in;
    for (int i = 0; i < RECEIVES_PER_CALL; i++) {
        receive->parts[i] = (struct iovec){pump->receive_room[i], sizeof pump->receive_room[i]};
        receive->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &receive->from[i],
            .msg_namelen = sizeof receive->from[i],
            .msg_iov = &receive->parts[i],
            .msg_iovlen = 1,
            .msg_control = &receive->control[i],
            .msg_controllen = sizeof receive->control[i],
        };
    }
    int received = recvmmsg(in->outlet.udp, receive->messages, RECEIVES_PER_CALL, MSG_DONTWAIT, NULL);
    /* An error of an earlier datagram, reported late; the call cleared it. */
    if (received <= 0)
        return 0;
    in->rules = enter(pump, &pump->in_uses);
    for (int i = 0; i < received && !in->outlet.device_gone; i++) {
        const struct sockaddr_in *from = &receive->from[i];
        in_datagrams(in, pump->receive_room[i], receive->messages[i].msg_len, gro_size(&receive->messages[i].msg_hdr),
                     ntohl(from->sin_addr.s_addr), ntohs(from->sin_port));
    }
    flush_run(in);
    leave(&pump->in_uses);
    publish(&pump->in_counters, &in->counters);
    return received;
}

/* Sleeps until a descriptor is ready or `timeout_ms` have passed; returns the result of poll(). */
static int sleep_until(struct pollfd *descriptors, nfds_t count, int timeout_ms)
{
    int ready;
    do
        ready = poll(descriptors, count, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready;
}

int native_pump_move(native_pump *pump)
{
    struct receive receive = {0};
    struct busy_poll poll_state = {0};
    bool out_was_empty = true, both[2] = {false, false};
    int rounds = 0; /* without an empty poll */
    while (!atomic_load_explicit(&pump->stopping, memory_order_relaxed)) {
        bool lent = atomic_load(&pump->helper_owns_rx);
        int out = carry_out_round(pump, out_was_empty);
        int in = lent ? 0 : carry_in_round(pump, &receive);
        out_was_empty = out < READS_PER_ROUND;
        if (pump->out.outlet.device_gone || (!lent && pump->in.outlet.device_gone))
            return EBADFD;
        if (out + in > 0) {
            packets_came(&poll_state, (unsigned)out, (unsigned)in);
            both[0] |= out > 0;
            both[1] |= in > 0;
            if (++rounds >= HAND_OVER_AFTER_ROUNDS && both[0] && both[1] && !lent) {
                atomic_store(&pump->helper_owns_rx, true);
                wake(pump->helper_wakeup_fd);
            }
            continue;
        }
        rounds = 0;
        both[0] = both[1] = false;
        if (should_gather(&poll_state)) {
            nanosleep(&(struct timespec){.tv_nsec = GATHER_NS}, NULL);
            continue;
        }
        if (should_spin(&poll_state))
            continue;
        struct pollfd descriptors[3] = {{.fd = pump->out.outlet.tun, .events = POLLIN},
                                        {.fd = pump->mover_wakeup_fd, .events = POLLIN},
                                        {.fd = pump->in.outlet.udp, .events = POLLIN}};
        if (sleep_until(descriptors, lent ? 2 : 3, -1) < 0)
            return errno;
        if (descriptors[0].revents & ~POLLIN)
            return EBADFD;
        if (descriptors[2].revents & POLLNVAL)
            return EBADF;
        if (descriptors[1].revents != 0)
            clear_wakeup(pump->mover_wakeup_fd);
        woke_up(&poll_state);
    }
    return 0;
}

/* Runs the helper; 0 when it has returned the direction. */
static int carry_in_until_quiet(native_pump *pump, struct receive *receive)
{
    while (!atomic_load_explicit(&pump->stopping, memory_order_relaxed)) {
        if (carry_in_round(pump, receive) > 0)
            continue;
        if (pump->in.outlet.device_gone)
            return EBADFD;
        struct pollfd descriptors[2] = {{.fd = pump->in.outlet.udp, .events = POLLIN},
                                        {.fd = pump->helper_wakeup_fd, .events = POLLIN}};
        int ready = sleep_until(descriptors, 2, HAND_BACK_AFTER_MS);
        if (ready < 0)
            return errno;
        if (descriptors[0].revents & POLLNVAL)
            return EBADF;
        if (ready == 0) {
            atomic_store(&pump->helper_owns_rx, false);
            wake(pump->mover_wakeup_fd);
            return 0;
        }
    }
    return 0;
}

int native_pump_help(native_pump *pump)
{
    struct receive receive = {0};
    int failure = 0;
    while (failure == 0 && !atomic_load_explicit(&pump->stopping, memory_order_relaxed)) {
        struct pollfd wakeup = {.fd = pump->helper_wakeup_fd, .events = POLLIN};
        if (sleep_until(&wakeup, 1, -1) < 0)
            return errno;
        clear_wakeup(pump->helper_wakeup_fd);
        if (atomic_load(&pump->helper_owns_rx))
            failure = carry_in_until_quiet(pump, &receive);
    }
    return failure;
}
