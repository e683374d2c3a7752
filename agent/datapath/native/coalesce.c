/* UDP -> TUN: check each datagram, join consecutive segments of one flow, write. */

/* Consecutive segments of one flow, collected for one write. The packets stay in the receive buffer. */
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

/* The run's pieces one by one, as received. */
static void write_each(struct inbound *in)
{
    struct run *run = &in->run;
    for (size_t i = 0; i < run->count; i++) {
        /* Headers and payload of a piece are adjacent in the receive buffer. */
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
        write_each(in); /* this kernel refuses such a super-packet */
    else
        count_write(in, written, run->count, carried);
    run->count = 0;
}

/* Returns whether the packet may be part of a super-packet; sets `headers` to the length of all its headers. */
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
        return *headers >= 40 && *headers < size && (transport[12] & 0xF) == 0 && (transport[13] & ~TCP_PSH) == TCP_ACK;
    }
    *headers = 28;
    return header->protocol == PROTOCOL_UDP && in->outlet.offloads.tun_udp && size > 28 &&
           be16(transport + 4) == size - 20 && be16(transport + 6) != 0;
}

/* Returns whether the candidate follows the run's last packet, so that segmentation restores both. */
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
    /* Last, because they cost the most: a super-packet's checksum is not verified later. */
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

/* One datagram: decide, and add it to the run, which points to `datagram` until it is flushed. */
static void in_datagram(struct inbound *in, const uint8_t *datagram, size_t size, uint32_t address, uint16_t port)
{
    struct header header;
    size_t headers;
    /* The start of a datagram that is too long, as in python_pump.py. */
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
