/* Moves packets between a TUN device and a UDP socket in bulk. Decides exactly as forwarder.py does, and nothing else.
 *
 *   TUN -> UDP   one read gives a TCP super-packet of up to 64 KiB behind a virtio_net_hdr. It is validated, decided
 *                about once, cut into the packets that a peer expects, and these leave by one sendmsg (UDP_SEGMENT),
 *                headers from a scratch array, payload from where it was read to.
 *   UDP -> TUN   one receive gives many datagrams of one peer (UDP_GRO). Each is validated and decided about alone;
 *                runs of consecutive segments of one flow are written to the TUN device as one super-packet.
 *
 * Two threads: the mover, which has both directions, and the helper, which has the second one while there is much to do
 * in both. They share nothing but the rules, which are replaced as a whole. No allocation per packet. Functions stand in the order in which a packet meets them:
 *
 *   bytes and checksums -> rules -> parse -> decide -> answer -> out: check, cut, batch, send
 *                                                             -> in: coalesce, write
 *   -> the two threads -> trials
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    MAX_PACKET = 65535,       /* bytes: IPv4 total length */
    MAX_UDP_PAYLOAD = 65507,  /* bytes: 65,535 less the outer IPv4 and UDP headers */
    MAX_PIECES = 64,          /* per send and per write; UDP_MAX_SEGMENTS of kernels before 6.9 */
    MAX_HEADERS = 60 + 60,    /* bytes: IPv4 and TCP, both with all options */
    ANSWER_ROOM = 20 + 8 + 60 + 8,
    ANSWERS_PER_S = 100,      /* as python_pump.py */
    READS = 64,               /* per round, so that `stop` and new rules do not wait */
    RECEIVES = 4,             /* per system call */
    LEND_AFTER = 16,          /* rounds without a pause until the helper takes one direction */
    QUIET_MS = 5,             /* after which it gives it back */
    LOOK_NS = 50000,          /* the longest time of looking again before sleeping */
    TURN_NS = 100000,         /* a yield that takes longer: others have work for this core */
    REST_NS = 1000000,        /* so long after that nobody looks again; twice as long each time, */
    REST_MOST_NS = 1000000000, /* up to this */
    REST_FADES = 64,          /* and shorter by one part in so many with each packet that looking found */
    WINDOW_NS = 1000000,      /* over which packets are counted */
    STREAM_PACKETS = 50,      /* one way in a window: a stream of small packets, nobody waits for each of them */
    GATHER_NS = 100000,      /* so long such a stream may gather */
    SOON_NS = 200000,         /* a packet after less than this speaks for looking again */
    EAGER = 4,                /* level from which on it is done */
    EAGER_MOST = 16,
    LINE = 64,                /* bytes: each packet begins on a cache line of its own */
    READ_SIZE = 10 + MAX_PACKET,
    READ_ROOM = 4 * (READ_SIZE + LINE), /* bytes that are read before they are sent */
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    TCP_CWR = 0x80,
    TCP_CHECKSUM = 16, /* offset in the TCP header */
    UDP_CHECKSUM = 6,
    MORE_FRAGMENTS = 0x2000,
    FRAGMENT_OFFSET = 0x1FFF,
};

/* struct virtio_net_hdr of linux/virtio_net.h, whose C++-style enums differ between kernels' headers. */
struct vnet_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;
    uint16_t checksum_offset;
};
enum { VNET_NEEDS_CHECKSUM = 1 };
enum { VNET_GSO_NONE = 0, VNET_GSO_TCP4 = 1, VNET_GSO_UDP = 5, VNET_GSO_ECN = 0x80 };
_Static_assert(sizeof(struct vnet_header) == 10, "the kernel's size");

/* --- reasons, in the order of drops.py ------------------------------------------------------------------------- */

enum reason {
    PEER, SHORT, VERSION, IHL, LENGTH, GSO, CHECKSUM, TTL, TOO_LONG, SOURCE, DESTINATION, NEST, MULTICAST, OWN,
    NO_ROUTE, FENCED, TUN_READ, TUN_WRITE, UDP_SEND, REASONS,
    FORWARD = REASONS, /* no reason: it is good */
};

const char *native_reasons(void)
{
    return "peer short version ihl length gso checksum ttl toolong source destination nest multicast own "
           "no_route fenced tun_read tun_write udp_send";
}

_Static_assert(REASONS <= sizeof(((struct native_counters *)0)->drops) / sizeof(uint64_t), "room for every reason");

/* --- bytes and checksums --------------------------------------------------------------------------------------- */

static uint16_t be16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_be16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_be32(uint8_t *at, uint32_t value)
{
    put_be16(at, value >> 16);
    put_be16(at + 2, value & 0xFFFF);
}

/* Adds the words of `data` to a ones' complement sum (RFC 1071), in memory order: sums do not depend on byte order
 * until they are stored. 64-bit lanes of 32-bit words cannot overflow within a packet. */
static uint64_t sum_words(uint64_t sum, const uint8_t *data, size_t size)
{
    uint64_t low = 0, high = 0, word;
    size_t blocks = size / 8;
    for (size_t i = 0; i < blocks; i++) {
        memcpy(&word, data + 8 * i, 8);
        low += word & 0xFFFFFFFF;
        high += word >> 32;
    }
    uint64_t rest = 0;
    if (size % 8 != 0)
        memcpy(&rest, data + 8 * blocks, size % 8);
    return sum + low + high + (rest & 0xFFFFFFFF) + (rest >> 32);
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

/* Stores the checksum for a sum in memory order. */
static void put_checksum(uint8_t *at, uint64_t sum)
{
    uint16_t checksum = (uint16_t)~fold(sum);
    memcpy(at, &checksum, 2);
}

static void put_header_checksum(uint8_t *packet, size_t header)
{
    put_be16(packet + 10, 0);
    put_checksum(packet + 10, sum_words(0, packet, header));
}

/* The pseudo header of TCP and UDP (RFC 9293 §3.1): addresses, protocol, length of the segment. */
static uint64_t sum_pseudo_header(const uint8_t *packet, uint8_t protocol, size_t segment)
{
    return sum_words(0, packet + 12, 8) + htons(protocol) + htons((uint16_t)segment);
}

/* --- rules: the node, its table, replaced as a whole ----------------------------------------------------------- */

struct native_rules {
    struct native_node node;
    uint32_t broadcast;
    size_t lengths;
    struct {
        uint32_t mask;
        size_t first, count;
    } by_length[33]; /* the longest first; ranges of by_network */
    size_t count;
    struct native_subnet *by_network; /* by mask, the longest first, then by network */
    struct native_subnet *by_peer;    /* by address and port */
};

static int compare_numbers(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int compare_network(const void *left, const void *right)
{
    const struct native_subnet *a = left, *b = right;
    return a->mask == b->mask ? compare_numbers(a->network, b->network) : compare_numbers(b->mask, a->mask);
}

static int compare_peer(const void *left, const void *right)
{
    const struct native_subnet *a = left, *b = right;
    return a->address == b->address ? a->port - b->port : compare_numbers(a->address, b->address);
}

native_rules *native_rules_new(const struct native_node *node, const struct native_subnet *subnets, size_t count)
{
    /* One block, so that there is one way to fail and one thing to free. */
    native_rules *rules = calloc(1, sizeof *rules + 2 * count * sizeof *subnets);
    if (rules == NULL)
        return NULL;
    rules->node = *node;
    rules->broadcast = node->network | ~node->mask;
    rules->count = count;
    rules->by_network = (struct native_subnet *)(rules + 1);
    rules->by_peer = rules->by_network + count;
    if (count == 0)
        return rules;
    memcpy(rules->by_network, subnets, count * sizeof *subnets);
    memcpy(rules->by_peer, subnets, count * sizeof *subnets);
    qsort(rules->by_network, count, sizeof *subnets, compare_network);
    qsort(rules->by_peer, count, sizeof *subnets, compare_peer);
    for (size_t i = 0; i < count; i++) {
        uint32_t mask = rules->by_network[i].mask;
        if (rules->lengths == 0 || rules->by_length[rules->lengths - 1].mask != mask) {
            if (rules->lengths == 33)
                break; /* more masks than there are lengths: not what Python sends */
            rules->by_length[rules->lengths].mask = mask;
            rules->by_length[rules->lengths].first = i;
            rules->lengths++;
        }
        rules->by_length[rules->lengths - 1].count++;
    }
    return rules;
}

void native_rules_free(native_rules *rules)
{
    free(rules);
}

/* The peer that holds the longest matching subnet, or NULL. */
static const struct native_subnet *lookup(const native_rules *rules, uint32_t destination)
{
    for (size_t i = 0; i < rules->lengths; i++) {
        uint32_t wanted = destination & rules->by_length[i].mask;
        const struct native_subnet *low = rules->by_network + rules->by_length[i].first;
        size_t count = rules->by_length[i].count;
        while (count > 0) {
            const struct native_subnet *middle = low + count / 2;
            if (middle->network == wanted)
                return middle;
            if (middle->network < wanted) {
                low = middle + 1;
                count -= count / 2 + 1;
            } else {
                count /= 2;
            }
        }
    }
    return NULL;
}

/* The first subnet of the peer with this outer address and port, or NULL; its others follow it in `by_peer`. */
static const struct native_subnet *first_of_peer(const native_rules *rules, uint32_t address, uint16_t port)
{
    struct native_subnet wanted = {.address = address, .port = port};
    const struct native_subnet *low = rules->by_peer;
    size_t count = rules->count;
    while (count > 0) {
        const struct native_subnet *middle = low + count / 2;
        if (compare_peer(middle, &wanted) < 0) {
            low = middle + 1;
            count -= count / 2 + 1;
        } else {
            count /= 2;
        }
    }
    bool found = low < rules->by_peer + rules->count && low->address == address && low->port == port;
    return found ? low : NULL;
}

static bool peer_holds(const native_rules *rules, const struct native_subnet *subnet, uint32_t source)
{
    uint32_t address = subnet->address;
    uint16_t port = subnet->port;
    for (; subnet < rules->by_peer + rules->count && subnet->address == address && subnet->port == port; subnet++)
        if ((source & subnet->mask) == subnet->network)
            return true;
    return false;
}

/* --- parse: packet.py ------------------------------------------------------------------------------------------ */

struct header {
    size_t length;       /* of the header, options included */
    size_t total_length; /* of the packet, as it says itself */
    uint16_t flags_and_offset;
    uint8_t ttl;
    uint8_t protocol;
    uint32_t source;
    uint32_t destination;
};

/* FORWARD, or what is wrong. `truncated`: `packet` is only the beginning of what was received. */
static enum reason parse_ipv4(const uint8_t *packet, size_t size, bool truncated, struct header *header)
{
    if (size < 20)
        return SHORT;
    if (packet[0] >> 4 != 4)
        return VERSION;
    header->length = (size_t)(packet[0] & 0xF) * 4;
    if (header->length < 20 || header->length > size)
        return IHL;
    header->total_length = be16(packet + 2);
    if (header->total_length < header->length || (header->total_length > size && !truncated))
        return LENGTH;
    header->flags_and_offset = be16(packet + 6);
    header->ttl = packet[8];
    header->protocol = packet[9];
    header->source = be32(packet + 12);
    header->destination = be32(packet + 16);
    return FORWARD;
}

static bool is_multicast_or_broadcast(uint32_t address)
{
    return address >> 28 == 0xE || address == 0xFFFFFFFF;
}

static bool is_one_host(uint32_t address)
{
    uint32_t first = address >> 24;
    return first != 0 && first != 127 && first < 224;
}

/* --- decide: forwarder.py -------------------------------------------------------------------------------------- */

/* UDP to the overlay port; only a packet's first fragment says so. */
static bool is_nested(const native_rules *rules, const uint8_t *packet, size_t size, const struct header *header)
{
    size_t start = header->length + 2;
    if (header->protocol != PROTOCOL_UDP || (header->flags_and_offset & FRAGMENT_OFFSET) != 0)
        return false;
    return header->total_length >= start + 2 && size >= start + 2 && be16(packet + start) == rules->node.port;
}

/* FORWARD and whom to, or why not. OWN and NO_ROUTE are to be answered. */
static enum reason decide_from_tun(const native_rules *rules, const uint8_t *packet, size_t size,
                                   const struct header *header, const struct native_subnet **peer)
{
    if (header->ttl == 0)
        return TTL;
    if (rules->node.fenced)
        return FENCED;
    if (is_nested(rules, packet, size, header))
        return NEST;
    bool own = (header->destination & rules->node.mask) == rules->node.network;
    *peer = lookup(rules, header->destination);
    if (*peer != NULL && !own)
        return FORWARD;
    if (is_multicast_or_broadcast(header->destination))
        return MULTICAST;
    return own ? OWN : NO_ROUTE;
}

/* FORWARD, or why not. */
static enum reason decide_from_udp(const native_rules *rules, const uint8_t *packet, size_t size, uint32_t address,
                                   uint16_t port, bool truncated, struct header *header)
{
    const struct native_subnet *subnet = first_of_peer(rules, address, port);
    if (subnet == NULL)
        return PEER;
    enum reason reason = parse_ipv4(packet, size, truncated, header);
    if (reason != FORWARD)
        return reason;
    if (fold(sum_words(0, packet, header->length)) != 0xFFFF)
        return CHECKSUM;
    if (header->ttl == 0)
        return TTL;
    if (truncated || size > rules->node.overlay_mtu)
        return TOO_LONG;
    if (!peer_holds(rules, subnet, header->source))
        return SOURCE;
    /* The subnet's base address is the overlay device's own and valid. */
    if ((header->destination & rules->node.mask) != rules->node.network || header->destination == rules->broadcast)
        return DESTINATION;
    if (is_nested(rules, packet, size, header))
        return NEST;
    return rules->node.fenced ? FENCED : FORWARD;
}

/* --- answer: packet.py's net_unreachable ----------------------------------------------------------------------- */

static bool is_icmp_query(uint8_t type)
{
    static const uint8_t queries[] = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43};
    return memchr(queries, type, sizeof queries) != NULL;
}

/* An ICMP destination net unreachable (RFC 792) for `packet` in `answer`; returns its size, or 0 where RFC 1122
 * §3.2.2 forbids one. Only the header and 8 bytes of `packet` are looked at. */
static size_t net_unreachable(const native_rules *rules, const uint8_t *packet, const struct header *header,
                              uint8_t answer[ANSWER_ROOM])
{
    if (header->source == rules->broadcast || (header->flags_and_offset & FRAGMENT_OFFSET) != 0 ||
        !is_one_host(header->source) || is_multicast_or_broadcast(header->destination))
        return 0;
    if (header->protocol == PROTOCOL_ICMP &&
        (header->total_length == header->length || !is_icmp_query(packet[header->length])))
        return 0;
    size_t quoted = header->length + 8 < header->total_length ? header->length + 8 : header->total_length;
    memset(answer, 0, 28);
    answer[0] = 0x45;
    put_be16(answer + 2, (unsigned)(28 + quoted));
    answer[8] = 64;
    answer[9] = PROTOCOL_ICMP;
    put_be32(answer + 12, rules->node.network);
    put_be32(answer + 16, header->source);
    put_header_checksum(answer, 20);
    answer[20] = 3; /* destination unreachable; code 0, net unreachable */
    memcpy(answer + 28, packet, quoted);
    put_checksum(answer + 22, sum_words(0, answer + 20, 8 + quoted));
    return 28 + quoted;
}

/* --- where packets go: the kernel, or a trial's log ------------------------------------------------------------- */

struct trial_log {
    uint8_t *bytes;
    size_t used, room;
    bool overflow;
};

struct outlet {
    int tun, udp;
    struct native_offloads offloads;
    struct trial_log *log; /* NULL: to the kernel */
    bool device_gone;
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

/* Sends datagrams of `piece` bytes each, the last may be shorter; 0 for one of any size. False: errno says why. */
static bool send_datagrams(struct outlet *outlet, struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                           uint16_t piece)
{
    if (outlet->log != NULL) {
        log_record(outlet->log, parts, count, address, port, piece);
        return true;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(address)}};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = parts, .msg_iovlen = count};
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr aligned;
    } control = {0};
    if (piece != 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
        segment->cmsg_level = IPPROTO_UDP;
        segment->cmsg_type = UDP_SEGMENT;
        segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        memcpy(CMSG_DATA(segment), &piece, sizeof piece);
    }
    ssize_t sent;
    do
        sent = sendmsg(outlet->udp, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

/* Writes one packet, or super-packet, to the TUN device; parts[0] is left for the virtio header. */
static bool write_packet(struct outlet *outlet, const struct vnet_header *vnet, struct iovec *parts, size_t count)
{
    parts[0] = (struct iovec){(void *)vnet, sizeof *vnet};
    if (!outlet->offloads.vnet_header) {
        parts++;
        count--;
    }
    if (outlet->log != NULL) {
        log_record(outlet->log, parts, count, 0, 0, 0);
        return true;
    }
    ssize_t written;
    do
        written = writev(outlet->tun, parts, (int)count);
    while (written < 0 && errno == EINTR);
    if (written < 0 && (errno == EBADFD || errno == EBADF))
        outlet->device_gone = true;
    return written >= 0;
}

static const struct vnet_header PLAIN = {0};

static bool write_plain(struct outlet *outlet, const uint8_t *packet, size_t size)
{
    struct iovec parts[2] = {[1] = {(void *)packet, size}};
    return write_packet(outlet, &PLAIN, parts, 2);
}

/* --- out: TUN -> UDP -------------------------------------------------------------------------------------------- */

/* A limit on answers, RFC 1812 §4.3.2.8; as token_bucket.py. */
struct token_bucket {
    double rate_per_s, tokens, at_s;
};

static bool take_token(struct token_bucket *bucket)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double now_s = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    bucket->tokens += (now_s - bucket->at_s) * bucket->rate_per_s;
    bucket->at_s = now_s;
    if (bucket->tokens > bucket->rate_per_s)
        bucket->tokens = bucket->rate_per_s;
    if (bucket->tokens < 1)
        return false;
    bucket->tokens -= 1;
    return true;
}

/* How a super-packet is to be cut. */
struct cut {
    size_t headers; /* bytes of IPv4 and TCP or UDP header, which every piece gets */
    size_t payload; /* bytes behind them */
    size_t size;    /* payload of each piece but the last */
    size_t pieces;
};

/* Datagrams that wait for one send: to one peer, of one size, only the last may be shorter. */
struct batch {
    uint32_t address;
    uint16_t port;
    bool closed; /* the last one was shorter, so none can follow */
    size_t pieces, piece, bytes, parts;
    struct iovec part[2 * MAX_PIECES];
    uint8_t parts_of[MAX_PIECES]; /* 1 or 2 */
    uint8_t headers[MAX_PIECES][MAX_HEADERS];
};

struct outbound {
    const native_rules *rules;
    struct outlet outlet;
    struct native_counters counters;
    struct token_bucket answers;
    struct batch batch;
};

static void flush_batch(struct outbound *out)
{
    struct batch *batch = &out->batch;
    if (batch->pieces == 0)
        return;
    bool many = batch->pieces > 1;
    errno = 0;
    if ((!many || out->outlet.offloads.udp_segment) &&
        send_datagrams(&out->outlet, batch->part, batch->parts, batch->address, batch->port,
                       many ? (uint16_t)batch->piece : 0)) {
        out->counters.tx_packets += batch->pieces;
        out->counters.tx_bytes += batch->bytes;
    } else if (many && (errno == 0 || errno == EINVAL || errno == EMSGSIZE || errno == EIO)) {
        /* The kernel, or this path's MTU or device, takes no such bundle, but perhaps each alone. */
        struct iovec *part = batch->part;
        for (size_t i = 0; i < batch->pieces; part += batch->parts_of[i], i++) {
            size_t size = part[0].iov_len + (batch->parts_of[i] > 1 ? part[1].iov_len : 0);
            if (send_datagrams(&out->outlet, part, batch->parts_of[i], batch->address, batch->port, 0)) {
                out->counters.tx_packets++;
                out->counters.tx_bytes += size;
            } else {
                out->counters.drops[UDP_SEND]++;
            }
        }
    } else {
        out->counters.drops[UDP_SEND] += batch->pieces;
    }
    batch->pieces = 0;
}

/* Makes room for one more datagram of `size` bytes to `peer`; the caller then appends its parts. */
static struct batch *batch_for(struct outbound *out, const struct native_subnet *peer, size_t size)
{
    struct batch *batch = &out->batch;
    if (batch->pieces > 0 &&
        (batch->closed || batch->pieces == MAX_PIECES || size > batch->piece || size == 0 ||
         batch->bytes + size > MAX_UDP_PAYLOAD || batch->address != peer->address || batch->port != peer->port))
        flush_batch(out);
    if (batch->pieces == 0) {
        batch->address = peer->address;
        batch->port = peer->port;
        batch->piece = size;
        batch->bytes = batch->parts = 0;
    }
    batch->closed = size < batch->piece;
    batch->bytes += size;
    batch->parts_of[batch->pieces++] = 0;
    return batch;
}

static void append_part(struct batch *batch, const uint8_t *bytes, size_t size)
{
    batch->part[batch->parts++] = (struct iovec){(void *)bytes, size};
    batch->parts_of[batch->pieces - 1]++;
}

/* FORWARD and how to cut the super-packet, or GSO: what the virtio header says of it cannot be. The header's own
 * `header_length` is not believed: it is wrong for packets that the kernel forwarded (the pods' are). */
static enum reason plan_cut(const struct vnet_header *vnet, const uint8_t *packet, size_t size,
                            const struct header *header, struct cut *cut)
{
    uint8_t type = vnet->gso_type & (uint8_t)~VNET_GSO_ECN;
    bool tcp = type == VNET_GSO_TCP4;
    size_t transport = size - header->length;
    if ((!tcp && type != VNET_GSO_UDP) || vnet->gso_size == 0 || vnet->header_length > size ||
        !(vnet->flags & VNET_NEEDS_CHECKSUM) || header->total_length != size ||
        (header->flags_and_offset & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) != 0 ||
        header->protocol != (tcp ? PROTOCOL_TCP : PROTOCOL_UDP) || transport < (tcp ? 20 : 8) ||
        vnet->checksum_start != header->length || vnet->checksum_offset != (tcp ? TCP_CHECKSUM : UDP_CHECKSUM))
        return GSO;
    size_t transport_header = tcp ? (size_t)(packet[header->length + 12] >> 4) * 4 : 8;
    if (transport_header < (tcp ? 20 : 8) || transport_header > transport)
        return GSO;
    cut->headers = header->length + transport_header;
    cut->payload = size - cut->headers;
    cut->size = vnet->gso_size;
    cut->pieces = cut->payload == 0 ? 1 : (cut->payload + cut->size - 1) / cut->size;
    if (cut->headers + (cut->payload < cut->size ? cut->payload : cut->size) > MAX_UDP_PAYLOAD)
        return GSO;
    return FORWARD;
}

/* Finishes the checksum that the kernel left to the device: the field holds the sum of the pseudo header. */
static enum reason complete_checksum(const struct vnet_header *vnet, uint8_t *packet, const struct header *header)
{
    size_t start = vnet->checksum_start, field = start + vnet->checksum_offset;
    if (start < header->length || field + 2 > header->total_length)
        return GSO;
    uint16_t checksum = (uint16_t)~fold(sum_words(0, packet + start, header->total_length - start));
    if (checksum == 0)
        checksum = 0xFFFF; /* 0 means «no checksum» to UDP, and to TCP the two are the same number */
    memcpy(packet + field, &checksum, 2);
    return FORWARD;
}

/* Writes the headers of piece `index`; returns where its payload is and how long. */
static const uint8_t *cut_piece(const uint8_t *packet, const struct header *header, const struct cut *cut, size_t index,
                                uint8_t *headers, size_t *length)
{
    size_t offset = index * cut->size;
    size_t left = cut->payload - offset;
    *length = left < cut->size ? left : cut->size;
    memcpy(headers, packet, cut->headers);
    put_be16(headers + 2, (unsigned)(cut->headers + *length));
    put_be16(headers + 4, be16(packet + 4) + (unsigned)index);
    put_header_checksum(headers, header->length);

    uint8_t *transport = headers + header->length;
    size_t transport_header = cut->headers - header->length;
    const uint8_t *payload = packet + cut->headers + offset;
    size_t field = UDP_CHECKSUM;
    if (header->protocol == PROTOCOL_TCP) {
        field = TCP_CHECKSUM;
        put_be32(transport + 4, be32(transport + 4) + (uint32_t)offset);
        if (index + 1 < cut->pieces)
            transport[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (index > 0)
            transport[13] &= (uint8_t)~TCP_CWR;
    } else {
        put_be16(transport + 4, (unsigned)(8 + *length));
    }
    put_be16(transport + field, 0);
    uint64_t sum = sum_pseudo_header(headers, header->protocol, transport_header + *length);
    /* Payload and header are summed apart; both begin at an even offset, as all headers are words. */
    sum = sum_words(sum_words(sum, transport, transport_header), payload, *length);
    put_checksum(transport + field, sum);
    if (header->protocol == PROTOCOL_UDP && be16(transport + field) == 0)
        put_be16(transport + field, 0xFFFF);
    return payload;
}

static void answer_unreachable(struct outbound *out, const uint8_t *packet, const struct header *header)
{
    uint8_t answer[ANSWER_ROOM];
    size_t size = net_unreachable(out->rules, packet, header, answer);
    if (size == 0 || !take_token(&out->answers))
        return;
    if (!write_plain(&out->outlet, answer, size) && !out->outlet.device_gone)
        out->counters.drops[TUN_WRITE]++;
}

static void send_pieces(struct outbound *out, const struct native_subnet *peer, const uint8_t *packet,
                        const struct header *header, const struct cut *cut)
{
    for (size_t i = 0; i < cut->pieces; i++) {
        size_t left = cut->payload - i * cut->size;
        struct batch *batch = batch_for(out, peer, cut->headers + (left < cut->size ? left : cut->size));
        uint8_t *headers = batch->headers[batch->pieces - 1];
        size_t length;
        const uint8_t *payload = cut_piece(packet, header, cut, i, headers, &length);
        append_part(batch, headers, cut->headers);
        append_part(batch, payload, length);
    }
}

static void answer_pieces(struct outbound *out, const uint8_t *packet, const struct cut *cut)
{
    for (size_t i = 0; i < cut->pieces; i++) {
        uint8_t piece[MAX_HEADERS + 8];
        struct header header;
        size_t length;
        parse_ipv4(packet, cut->headers, true, &header);
        const uint8_t *payload = cut_piece(packet, &header, cut, i, piece, &length);
        memcpy(piece + cut->headers, payload, length < 8 ? length : 8);
        header.total_length = cut->headers + length;
        answer_unreachable(out, piece, &header);
    }
}

/* One read from the TUN device: decide, and put it into the batch, which points into `buffer` until it is flushed. */
static void out_packet(struct outbound *out, uint8_t *buffer, size_t size)
{
    struct vnet_header vnet = PLAIN;
    if (out->outlet.offloads.vnet_header) {
        if (size < sizeof vnet) {
            out->counters.drops[SHORT]++;
            return;
        }
        memcpy(&vnet, buffer, sizeof vnet);
        buffer += sizeof vnet;
        size -= sizeof vnet;
    }
    struct header header;
    struct cut cut = {.pieces = 1};
    bool is_super = vnet.gso_type != VNET_GSO_NONE;
    enum reason reason = parse_ipv4(buffer, size, false, &header);
    if (reason == FORWARD && is_super)
        reason = plan_cut(&vnet, buffer, size, &header, &cut);
    else if (reason == FORWARD && vnet.flags & VNET_NEEDS_CHECKSUM)
        reason = complete_checksum(&vnet, buffer, &header);
    if (reason != FORWARD) {
        out->counters.drops[reason]++;
        return;
    }
    const struct native_subnet *peer = NULL;
    reason = decide_from_tun(out->rules, buffer, size, &header, &peer);
    if (reason == FORWARD) {
        if (is_super)
            send_pieces(out, peer, buffer, &header, &cut);
        else
            append_part(batch_for(out, peer, size), buffer, size);
        return;
    }
    out->counters.drops[reason] += cut.pieces;
    if (reason != OWN && reason != NO_ROUTE)
        return;
    if (is_super)
        answer_pieces(out, buffer, &cut);
    else
        answer_unreachable(out, buffer, &header);
}

/* --- in: UDP -> TUN --------------------------------------------------------------------------------------------- */

/* Consecutive segments of one flow that wait for one write. The packets lie where they were received. */
struct run {
    size_t count;
    bool closed;   /* the last one was shorter or had PSH, so none can follow */
    bool verified; /* the first one's checksum; the others' are verified before they join */
    uint8_t protocol;
    size_t headers; /* bytes of IPv4 and TCP or UDP header of each */
    size_t piece;   /* payload of the first */
    size_t bytes;   /* of the super-packet */
    const uint8_t *first;
    const uint8_t *last;
    struct iovec part[2 + MAX_PIECES]; /* virtio header, headers, then one payload each */
};

struct inbound {
    const native_rules *rules;
    struct outlet outlet;
    struct native_counters counters;
    struct run run;
};

static bool transport_checksum_is_right(const uint8_t *packet, size_t size)
{
    /* Only for headers without options: candidates. */
    uint64_t sum = sum_pseudo_header(packet, packet[9], size - 20);
    return fold(sum_words(sum, packet + 20, size - 20)) == 0xFFFF;
}

static void count_write(struct inbound *in, bool written, size_t packets, size_t bytes)
{
    if (written) {
        in->counters.rx_packets += packets;
        in->counters.rx_bytes += bytes;
    } else if (!in->outlet.device_gone) {
        in->counters.drops[TUN_WRITE] += packets;
    }
}

/* The run's pieces one by one, as they came. */
static void write_each(struct inbound *in)
{
    struct run *run = &in->run;
    for (size_t i = 0; i < run->count; i++) {
        /* Headers and payload of a piece lie together where it was received. */
        size_t size = run->headers + run->part[2 + i].iov_len;
        const uint8_t *packet = (const uint8_t *)run->part[2 + i].iov_base - run->headers;
        count_write(in, write_plain(&in->outlet, packet, size), 1, size);
    }
}

static void flush_run(struct inbound *in)
{
    struct run *run = &in->run;
    if (run->count < 2) {
        if (run->count == 1)
            write_each(in);
        run->count = 0;
        return;
    }
    bool tcp = run->protocol == PROTOCOL_TCP;
    size_t field = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    uint8_t headers[MAX_HEADERS];
    memcpy(headers, run->first, run->headers);
    put_be16(headers + 2, (unsigned)run->bytes);
    put_header_checksum(headers, 20);
    if (tcp)
        headers[20 + 13] |= run->last[20 + 13] & TCP_PSH;
    else
        put_be16(headers + 20 + 4, (unsigned)(run->bytes - 20));
    uint16_t pseudo = fold(sum_pseudo_header(headers, run->protocol, run->bytes - 20));
    memcpy(headers + 20 + field, &pseudo, 2);
    struct vnet_header vnet = {
        .flags = VNET_NEEDS_CHECKSUM,
        .gso_type = tcp ? VNET_GSO_TCP4 : VNET_GSO_UDP,
        .header_length = (uint16_t)run->headers,
        .gso_size = (uint16_t)run->piece,
        .checksum_start = 20,
        .checksum_offset = (uint16_t)field,
    };
    run->part[1] = (struct iovec){headers, run->headers};
    size_t carried = run->bytes + (run->count - 1) * run->headers;
    bool written = write_packet(&in->outlet, &vnet, run->part, 2 + run->count);
    if (!written && errno == EINVAL)
        write_each(in); /* this kernel takes no such super-packet */
    else
        count_write(in, written, run->count, carried);
    run->count = 0;
}

/* Whether the packet may be part of a super-packet at all; `headers` becomes the length of all its headers. */
static bool is_candidate(const struct inbound *in, const uint8_t *packet, size_t size, const struct header *header,
                         size_t *headers)
{
    if (!in->outlet.offloads.vnet_header || header->length != 20 || header->total_length != size ||
        (header->flags_and_offset & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) != 0)
        return false;
    const uint8_t *transport = packet + 20;
    if (header->protocol == PROTOCOL_TCP) {
        if (size < 40)
            return false;
        *headers = 20 + (size_t)(transport[12] >> 4) * 4;
        /* Plain data only: pure ACKs, SYN, FIN, RST, URG, ECE, CWR and reserved bits travel alone. */
        return *headers >= 40 && *headers < size && (transport[12] & 0xF) == 0 &&
               (transport[13] & ~TCP_PSH) == TCP_ACK;
    }
    *headers = 28;
    return header->protocol == PROTOCOL_UDP && in->outlet.offloads.tun_udp && size > 28 &&
           be16(transport + 4) == size - 20 && be16(transport + 6) != 0;
}

/* Whether the candidate follows the run's last packet so that cutting the super-packet gives both again. */
static bool follows(struct run *run, const uint8_t *packet, size_t size, size_t headers)
{
    const uint8_t *last = run->last;
    size_t payload = size - headers;
    if (run->closed || run->count == MAX_PIECES || packet[9] != run->protocol || headers != run->headers ||
        payload > run->piece || run->bytes + payload > MAX_PACKET)
        return false;
    /* ToS with ECN, DF and the reserved bit, TTL, addresses, ports. */
    if (packet[1] != last[1] || be16(packet + 6) != be16(last + 6) || packet[8] != last[8] ||
        memcmp(packet + 12, last + 12, 8 + 4) != 0 || be16(packet + 4) != (uint16_t)(be16(last + 4) + 1))
        return false;
    if (run->protocol == PROTOCOL_TCP &&
        (be32(packet + 24) != be32(last + 24) + (uint32_t)run->piece || /* sequence; the last was a full piece */
         memcmp(packet + 28, last + 28, 4) != 0 ||                      /* acknowledgement */
         memcmp(packet + 34, last + 34, 2) != 0 ||                      /* window */
         memcmp(packet + 38, last + 38, headers - 38) != 0))            /* urgent pointer, options */
        return false;
    /* Last, because they cost the most: a super-packet's checksum is not looked at any more. */
    if (!run->verified && !transport_checksum_is_right(run->first, run->headers + run->piece)) {
        run->closed = true;
        return false;
    }
    run->verified = true;
    return transport_checksum_is_right(packet, size);
}

static void join_run(struct run *run, const uint8_t *packet, size_t size, size_t headers)
{
    size_t payload = size - headers;
    run->last = packet;
    run->bytes += payload;
    run->part[2 + run->count++] = (struct iovec){(void *)(packet + headers), payload};
    run->closed = payload < run->piece || (run->protocol == PROTOCOL_TCP && packet[33] & TCP_PSH);
}

static void start_run(struct run *run, const uint8_t *packet, size_t size, size_t headers)
{
    run->count = 0;
    run->protocol = packet[9];
    run->headers = headers;
    run->piece = size - headers;
    run->bytes = headers;
    run->first = packet;
    run->verified = false;
    join_run(run, packet, size, headers);
}

/* One datagram: decide, and put it into the run, which points to `datagram` until it is flushed. */
static void in_datagram(struct inbound *in, const uint8_t *datagram, size_t size, uint32_t address, uint16_t port)
{
    struct header header;
    size_t headers;
    /* What python_pump.py sees of a datagram that is too long: its beginning. */
    bool truncated = size > in->rules->node.overlay_mtu;
    if (truncated)
        size = (size_t)in->rules->node.overlay_mtu + 1;
    enum reason reason = decide_from_udp(in->rules, datagram, size, address, port, truncated, &header);
    if (reason != FORWARD) {
        in->counters.drops[reason]++;
        return;
    }
    if (!is_candidate(in, datagram, size, &header, &headers)) {
        flush_run(in);
        bool written = write_plain(&in->outlet, datagram, header.total_length);
        count_write(in, written, 1, header.total_length);
        return;
    }
    if (in->run.count > 0 && follows(&in->run, datagram, size, headers)) {
        join_run(&in->run, datagram, size, headers);
        return;
    }
    flush_run(in);
    start_run(&in->run, datagram, size, headers);
}

/* One receive: `segment` bytes per datagram, the last may be shorter; 0 for one datagram. */
static void in_datagrams(struct inbound *in, const uint8_t *data, size_t size, size_t segment, uint32_t address,
                         uint16_t port)
{
    if (segment == 0 || segment > size)
        segment = size;
    do {
        size_t length = size < segment ? size : segment;
        in_datagram(in, data, length, address, port);
        data += length;
        size -= length;
    } while (size > 0);
}

/* --- the two threads -------------------------------------------------------------------------------------------- */

/* A direction's counters for others to read: `version` is odd while they are written. */
struct published {
    _Atomic unsigned version;
    _Atomic uint64_t values[sizeof(struct native_counters) / sizeof(uint64_t)];
};

struct native_pump {
    _Atomic bool stopping;
    _Atomic bool in_is_lent;         /* UDP -> TUN belongs to the helper */
    int mover_bell, helper_bell;     /* eventfds: look at the two above */
    _Atomic(const native_rules *) rules;
    _Atomic(const native_rules *) out_uses; /* NULL while that thread sleeps */
    _Atomic(const native_rules *) in_uses;
    struct published out_counters, in_counters;
    uint64_t out_read_errors; /* that are published */
    struct outbound out;
    struct inbound in;
    uint8_t read_room[READ_ROOM];
    uint8_t receive_room[RECEIVES][MAX_PACKET + 1];
};

native_pump *native_pump_new(int tun, int udp, const struct native_offloads *offloads, native_rules *rules)
{
    native_pump *pump = calloc(1, sizeof *pump);
    if (pump == NULL)
        return NULL;
    pump->mover_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pump->helper_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pump->mover_bell < 0 || pump->helper_bell < 0) {
        native_pump_free(pump);
        return NULL;
    }
    pump->rules = rules;
    pump->out.outlet = pump->in.outlet = (struct outlet){.tun = tun, .udp = udp, .offloads = *offloads};
    pump->out.answers.rate_per_s = ANSWERS_PER_S; /* the first look at the clock fills the bucket */
    return pump;
}

void native_pump_free(native_pump *pump)
{
    if (pump == NULL)
        return;
    native_rules_free((native_rules *)pump->rules);
    if (pump->mover_bell >= 0)
        close(pump->mover_bell);
    if (pump->helper_bell >= 0)
        close(pump->helper_bell);
    free(pump);
}

/* Takes the rules in force; they are not freed before `leave`. Announce, then look again: either the replacer sees
 * the announcement, or we see its new rules. */
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

static void ring(int bell)
{
    const uint64_t once = 1;
    ssize_t written = write(bell, &once, sizeof once); /* fails only when it rings already */
    (void)written;
}

static void answer_bell(int bell)
{
    uint64_t times;
    ssize_t size = read(bell, &times, sizeof times);
    (void)size;
}

void native_pump_stop(native_pump *pump)
{
    atomic_store(&pump->stopping, true);
    ring(pump->mover_bell);
    ring(pump->helper_bell);
}

/* Reads until there is nothing more, or READS packets; how many there were. `alone`: there was nothing before. */
static int carry_out_round(native_pump *pump, bool alone)
{
    struct outbound *out = &pump->out;
    size_t used = 0;
    bool more = true;
    int packets = 0;
    out->rules = enter(pump, &pump->out_uses);
    for (int i = 0; i < READS && more && !out->outlet.device_gone; i++) {
        if (used + READ_SIZE > READ_ROOM) {
            flush_batch(out);
            used = 0;
        }
        ssize_t size = read(out->outlet.tun, pump->read_room + used, READ_SIZE);
        if (size >= 0) {
            out_packet(out, pump->read_room + used, (size_t)size);
            used += ((size_t)size + LINE - 1) / LINE * LINE;
            packets++;
            /* It may stay alone: it does not wait for others. */
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
    struct mmsghdr messages[RECEIVES];
    struct iovec parts[RECEIVES];
    struct sockaddr_in from[RECEIVES];
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control[RECEIVES];
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

/* Receives once; how many system-call messages there were. */
static int carry_in_round(native_pump *pump, struct receive *receive)
{
    struct inbound *in = &pump->in;
    for (int i = 0; i < RECEIVES; i++) {
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
    int received = recvmmsg(in->outlet.udp, receive->messages, RECEIVES, MSG_DONTWAIT, NULL);
    /* An error is that of an earlier datagram, reported late; the call took it away. */
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

/* Sleeps until a descriptor has something or `timeout_ms` are over; returns what poll() does. */
static int sleep_until(struct pollfd *descriptors, nfds_t count, int timeout_ms)
{
    int ready;
    do
        ready = poll(descriptors, count, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready;
}

/* Whether to look again and again for a while before sleeping. To wake a thread on a core that sleeps costs 50 us where
 * cores are virtual; who looks again is there already. Level rises while packets come soon one after the other, and
 * falls when looking was in vain. On a core that others have work for it is the wrong thing: who looks uses up its turn
 * and queues behind them, who sleeps is woken before them. So a long yield ends it for a rest: a short one at first,
 * because something passing by on a quiet machine does the same, and a longer one each time. */
struct eagerness {
    int level;
    bool looking;
    uint64_t empty_since_ns; /* 0: not empty at the last look */
    uint64_t rest_ns;        /* the last rest, faded */
    uint64_t rest_until_ns;
    uint64_t window_ns;      /* when it began */
    unsigned counted[2];     /* packets since, out and in: those of a ping-pong, however fast, are half each */
    bool streaming;          /* there were many in the last one */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* There was something. */
static void found(struct eagerness *eagerness, unsigned out, unsigned in)
{
    eagerness->counted[0] += out;
    eagerness->counted[1] += in;
    if (eagerness->looking) {
        eagerness->level += eagerness->level < EAGER_MOST;
        eagerness->rest_ns -= eagerness->rest_ns / REST_FADES;
    }
    eagerness->looking = false;
    eagerness->empty_since_ns = 0;
}

static void rest(struct eagerness *eagerness, uint64_t now)
{
    eagerness->level = 0;
    eagerness->rest_ns = eagerness->rest_ns < REST_NS ? REST_NS : 2 * eagerness->rest_ns;
    if (eagerness->rest_ns > REST_MOST_NS)
        eagerness->rest_ns = REST_MOST_NS;
    eagerness->rest_until_ns = now + eagerness->rest_ns;
}

/* There was nothing. Whether packets come so fast that it is better to let some gather: to be woken for each, or to look
 * for it, would cost more than to carry it. Super-packets of TCP never come so fast. */
static bool streams(struct eagerness *eagerness)
{
    uint64_t now = now_ns(), passed = now - eagerness->window_ns;
    if (passed >= WINDOW_NS) {
        unsigned most = eagerness->counted[0] > eagerness->counted[1] ? eagerness->counted[0] : eagerness->counted[1];
        eagerness->streaming = most >= STREAM_PACKETS * (passed / WINDOW_NS);
        eagerness->counted[0] = eagerness->counted[1] = 0;
        eagerness->window_ns = now;
    }
    return eagerness->streaming;
}

/* There was nothing. True: look again, others who want this core had their turn; false: sleep, then `woken`. */
static bool look_again(struct eagerness *eagerness)
{
    uint64_t now = now_ns();
    if (eagerness->empty_since_ns == 0)
        eagerness->empty_since_ns = now;
    if (eagerness->level < EAGER || now < eagerness->rest_until_ns)
        return false;
    if (now - eagerness->empty_since_ns > LOOK_NS) {
        eagerness->level -= 2; /* in vain */
        return false;
    }
    eagerness->looking = true;
    sched_yield();
    if (now_ns() - now > TURN_NS) {
        rest(eagerness, now);
        return false;
    }
    return true;
}

static void woken(struct eagerness *eagerness)
{
    bool soon = now_ns() - eagerness->empty_since_ns < SOON_NS;
    eagerness->level = soon ? eagerness->level + (eagerness->level < EAGER_MOST) : eagerness->level / 2;
    eagerness->looking = false;
    eagerness->empty_since_ns = 0;
}

int native_pump_move(native_pump *pump)
{
    struct receive receive = {0};
    struct eagerness eagerness = {0};
    bool out_was_empty = true, both[2] = {false, false};
    int rounds = 0; /* without finding nothing */
    while (!atomic_load_explicit(&pump->stopping, memory_order_relaxed)) {
        bool lent = atomic_load(&pump->in_is_lent);
        int out = carry_out_round(pump, out_was_empty);
        int in = lent ? 0 : carry_in_round(pump, &receive);
        out_was_empty = out < READS;
        if (pump->out.outlet.device_gone || (!lent && pump->in.outlet.device_gone))
            return EBADFD;
        if (out + in > 0) {
            found(&eagerness, (unsigned)out, (unsigned)in);
            both[0] |= out > 0;
            both[1] |= in > 0;
            if (++rounds >= LEND_AFTER && both[0] && both[1] && !lent) {
                atomic_store(&pump->in_is_lent, true);
                ring(pump->helper_bell);
            }
            continue;
        }
        rounds = 0;
        both[0] = both[1] = false;
        if (streams(&eagerness)) {
            nanosleep(&(struct timespec){.tv_nsec = GATHER_NS}, NULL);
            continue;
        }
        if (look_again(&eagerness))
            continue;
        struct pollfd descriptors[3] = {{.fd = pump->out.outlet.tun, .events = POLLIN},
                                        {.fd = pump->mover_bell, .events = POLLIN},
                                        {.fd = pump->in.outlet.udp, .events = POLLIN}};
        if (sleep_until(descriptors, lent ? 2 : 3, -1) < 0)
            return errno;
        if (descriptors[0].revents & ~POLLIN)
            return EBADFD;
        if (descriptors[2].revents & POLLNVAL)
            return EBADF;
        if (descriptors[1].revents != 0)
            answer_bell(pump->mover_bell);
        woken(&eagerness);
    }
    return 0;
}

/* The helper's turn; 0 when it gave the direction back. */
static int carry_in_until_quiet(native_pump *pump, struct receive *receive)
{
    while (!atomic_load_explicit(&pump->stopping, memory_order_relaxed)) {
        if (carry_in_round(pump, receive) > 0)
            continue;
        if (pump->in.outlet.device_gone)
            return EBADFD;
        struct pollfd descriptors[2] = {{.fd = pump->in.outlet.udp, .events = POLLIN},
                                        {.fd = pump->helper_bell, .events = POLLIN}};
        int ready = sleep_until(descriptors, 2, QUIET_MS);
        if (ready < 0)
            return errno;
        if (descriptors[0].revents & POLLNVAL)
            return EBADF;
        if (ready == 0) {
            atomic_store(&pump->in_is_lent, false);
            ring(pump->mover_bell);
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
        struct pollfd bell = {.fd = pump->helper_bell, .events = POLLIN};
        if (sleep_until(&bell, 1, -1) < 0)
            return errno;
        answer_bell(pump->helper_bell);
        if (atomic_load(&pump->in_is_lent))
            failure = carry_in_until_quiet(pump, &receive);
    }
    return failure;
}

/* --- trials ----------------------------------------------------------------------------------------------------- */

size_t native_trial_out(const native_rules *rules, const struct native_offloads *offloads, uint8_t *data,
                        const uint32_t *sizes, size_t count, struct native_counters *counters, uint8_t *log, size_t room)
{
    struct trial_log records = {.bytes = log, .room = room};
    struct outbound *out = calloc(1, sizeof *out);
    if (out == NULL)
        return (size_t)-1;
    out->rules = rules;
    out->outlet = (struct outlet){.tun = -1, .udp = -1, .offloads = *offloads, .log = &records};
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
    in->outlet = (struct outlet){.tun = -1, .udp = -1, .offloads = *offloads, .log = &records};
    for (size_t i = 0; i < count; data += sizes[i], i++)
        in_datagrams(in, data, sizes[i], segments[i], addresses[i], ports[i]);
    flush_run(in);
    *counters = in->counters;
    free(in);
    return records.overflow ? (size_t)-1 : records.used;
}
