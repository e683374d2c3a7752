/* The data path without descriptors, clock and limits, for tests and fuzzers: what would be sent or written goes into a
 * log, see native.h. */

struct trial_log {
    uint8_t *bytes;
    size_t used, room;
    bool overflow;
};

static void log_record(struct trial_log *log, const struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                       uint16_t piece)
{
    uint32_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += (uint32_t)parts[i].iov_len;
    if (log->overflow || log->room - log->used < 12 + (size_t)length) {
        log->overflow = true;
        return;
    }
    uint8_t *at = log->bytes + log->used;
    memcpy(at, &length, 4);
    memcpy(at + 4, &address, 4);
    memcpy(at + 8, &port, 2);
    memcpy(at + 10, &piece, 2);
    at += 12;
    for (size_t i = 0; i < count; at += parts[i].iov_len, i++)
        memcpy(at, parts[i].iov_base, parts[i].iov_len);
    log->used += 12 + length;
}

static bool send_to_log(struct outlet *outlet, struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                        uint16_t piece)
{
    log_record(outlet->trial, parts, count, address, port, piece);
    return true;
}

static bool write_to_log(struct outlet *outlet, struct iovec *parts, size_t count)
{
    log_record(outlet->trial, parts, count, 0, 0, 0);
    return true;
}

static const struct outlet_operations TO_LOG = {.send = send_to_log, .write = write_to_log};

size_t native_trial_out(const native_rules *rules, const struct native_offloads *offloads, uint8_t *data,
                        const uint32_t *sizes, size_t count, struct native_counters *counters, uint8_t *log,
                        size_t room)
{
    struct trial_log records = {.bytes = log, .room = room};
    struct outbound *out = calloc(1, sizeof *out);
    if (out == NULL)
        return (size_t)-1;
    out->rules = rules;
    out->outlet = (struct outlet){.tun = -1, .udp = -1, .offloads = *offloads, .to = &TO_LOG, .trial = &records};
    out->answers.rate_per_s = 1e12;
    for (size_t i = 0; i < count; data += sizes[i], i++)
        out_packet(out, data, sizes[i]);
    flush_batch(out);
    *counters = out->counters;
    free(out);
    return records.overflow ? (size_t)-1 : records.used;
}

size_t native_trial_in(const native_rules *rules, const struct native_offloads *offloads, const uint8_t *data,
                       const uint32_t *sizes, const uint16_t *segments, const uint32_t *addresses,
                       const uint16_t *ports, size_t count, struct native_counters *counters, uint8_t *log, size_t room)
{
    struct trial_log records = {.bytes = log, .room = room};
    struct inbound *in = calloc(1, sizeof *in);
    if (in == NULL)
        return (size_t)-1;
    in->rules = rules;
    in->outlet = (struct outlet){.tun = -1, .udp = -1, .offloads = *offloads, .to = &TO_LOG, .trial = &records};
    for (size_t i = 0; i < count; data += sizes[i], i++)
        in_datagrams(in, data, sizes[i], segments[i], addresses[i], ports[i]);
    flush_run(in);
    *counters = in->counters;
    free(in);
    return records.overflow ? (size_t)-1 : records.used;
}
