/* Parse, decide, answer: the fate of one packet. Pure, the twin of packet.py and forwarder.py. */

/* Drop reasons, in the order of counters.py. */
enum reason {
    PEER,
    SHORT,
    VERSION,
    IHL,
    LENGTH,
    GSO,
    CHECKSUM,
    TTL,
    TOO_LONG,
    SOURCE,
    DESTINATION,
    NEST,
    MULTICAST,
    OWN,
    NO_ROUTE,
    FENCED,
    TUN_READ,
    TUN_WRITE,
    UDP_SEND,
    REASONS,
    FORWARD = REASONS, /* no reason: it is valid */
};

const char *native_reasons(void)
{
    return "peer short version ihl length gso checksum ttl toolong source destination nest multicast own "
           "no_route fenced tun_read tun_write udp_send";
}

_Static_assert(REASONS <= sizeof(((struct native_counters *)0)->drops) / sizeof(uint64_t), "room for every reason");

/* --- parse: packet.py */

struct header {
    size_t length;       /* of the header, options included */
    size_t total_length; /* of the packet, as it says itself */
    uint16_t flags_and_offset;
    uint8_t ttl;
    uint8_t protocol;
    uint32_t source;
    uint32_t destination;
};

/* Returns FORWARD, or the error. `truncated`: `packet` is only the start of the received data. */
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

/* --- decide: forwarder.py */

/* UDP from and to the overlay port; only a packet's first fragment says so. */
static bool is_nested(const native_rules *rules, const uint8_t *packet, size_t size, const struct header *header)
{
    const uint8_t *ports = packet + header->length;
    size_t end = header->length + 4;
    if (header->protocol != PROTOCOL_UDP || (header->flags_and_offset & FRAGMENT_OFFSET) != 0)
        return false;
    if (header->total_length < end || size < end)
        return false;
    return be16(ports) == rules->node.port && be16(ports + 2) == rules->node.port;
}

/* Returns FORWARD and the peer, or the drop reason. OWN and NO_ROUTE require an answer. */
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

/* Returns FORWARD, or the drop reason. */
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
    /* The subnet's base address is the overlay device's own, so it is valid. */
    if ((header->destination & rules->node.mask) != rules->node.network || header->destination == rules->broadcast)
        return DESTINATION;
    if (is_nested(rules, packet, size, header))
        return NEST;
    return rules->node.fenced ? FENCED : FORWARD;
}

/* --- answer: packet.py's net_unreachable */

static bool is_icmp_query(uint8_t type)
{
    static const uint8_t queries[] = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43};
    return memchr(queries, type, sizeof queries) != NULL;
}

/* Writes an ICMP destination net unreachable (RFC 792) for `packet` to `answer`; returns its size, or 0 if RFC 1122
 * §3.2.2 forbids one. Reads only the header and 8 bytes of `packet`. */
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
