/* The Python interface of the native data path. Plain declarations only: cffi reads this file too, without a
 * preprocessor.
 *
 * Addresses, masks and ports are numbers in host order. Nothing here keeps a pointer to its arguments, except that a
 * pump owns its rules.
 */

/* One line of the forwarding table: a peer's subnet and the outer address of the peer. */
struct native_subnet {
    uint32_t network;
    uint32_t mask;
    uint32_t address;
    uint16_t port;
};

/* The deciding node, like `OwnNode` and `Forwarder.fenced` of forwarder.py. */
struct native_node {
    uint32_t network;
    uint32_t mask;
    uint32_t overlay_mtu;
    uint16_t port;
    uint8_t fenced;
};

/* Never decreases. `drops` is in the order of native_reasons(). */
struct native_counters {
    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t drops[32];
};

/* The kernel's offloads; if all are 0, packets move one at a time. */
struct native_offloads {
    uint8_t vnet_header; /* TUN: IFF_VNET_HDR, so reads and writes begin with a struct virtio_net_hdr */
    uint8_t tun_udp;     /* TUN: one write may carry many UDP datagrams of a flow */
    uint8_t udp_segment; /* socket: one send may carry many datagrams */
};

typedef struct native_rules native_rules;
typedef struct native_pump native_pump;

/* The drop reasons, separated by blanks; index n of `drops` counts the n-th. */
const char *native_reasons(void);

/* Rules for one node and its peers; each network may be listed once. NULL: no memory. */
native_rules *native_rules_new(const struct native_node *node, const struct native_subnet *subnets, size_t count);
void native_rules_free(native_rules *rules);

/* A pump between two non-blocking descriptors, which still belong to the caller. NULL: no memory or no descriptors, and
 * the rules still belong to the caller. */
native_pump *native_pump_new(int tun, int udp, const struct native_offloads *offloads, native_rules *rules);

/* Use these rules from now on. On return, the old ones are no longer used; they are freed. */
void native_pump_replace(native_pump *pump, native_rules *rules);

/* Move packets until stopped (both return 0), until the device is gone (either returns EBADFD), or until a permanent
 * failure (its errno). Each is for one thread, and both must run. */
int native_pump_move(native_pump *pump);
int native_pump_help(native_pump *pump);

/* Makes both return soon. For any thread, any number of times. */
void native_pump_stop(native_pump *pump);

/* Returns the sum of consistent copies of each direction's counters. For any thread. */
void native_pump_counters(native_pump *pump, struct native_counters *counters);

/* Call it only after both functions have returned. Frees the rules too. */
void native_pump_free(native_pump *pump);

/* For tests and fuzzers: the same code without descriptors, clock and limits. What would be sent or written is
 * appended to `log` as records of native byte order: uint32 length of the data, uint32 address, uint16 port,
 * uint16 size of each datagram but the last (0: one datagram), then the data. Address 0: a write to the TUN device.
 * Returns the bytes of `log` that were used, or (size_t)-1 when they did not suffice.
 *
 * out: `count` reads from the TUN device lie one after the other in `data` (and are changed), `sizes` says how long
 * each is.
 * in: `count` receives from the socket; `segments` has each one's UDP_GRO size (0: one datagram). */
size_t native_trial_out(const native_rules *rules, const struct native_offloads *offloads, uint8_t *data,
                        const uint32_t *sizes, size_t count, struct native_counters *counters, uint8_t *log,
                        size_t room);
size_t native_trial_in(const native_rules *rules, const struct native_offloads *offloads, const uint8_t *data,
                       const uint32_t *sizes, const uint16_t *segments, const uint32_t *addresses,
                       const uint16_t *ports, size_t count, struct native_counters *counters, uint8_t *log,
                       size_t room);
