/* TUN -> UDP: check a super-packet, cut it into packets, batch them for one peer, send. */

/* A rate limit for answers, RFC 1812 §4.3.2.8; as TokenBucket of python_pump.py. */
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
    size_t headers; /* bytes of IPv4 and TCP or UDP header, copied to every piece */
    size_t payload; /* bytes after them */
    size_t size;    /* payload of each piece but the last */
    size_t pieces;
};

/* Datagrams collected for one send: to one peer, of one size, only the last may be shorter. */
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
        /* The kernel, or this path's MTU or device, refuses such a bundle, but may accept single datagrams. */
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

/* Returns FORWARD and how to cut the super-packet, or GSO if the virtio header is invalid. The header's own
 * `header_length` is ignored: it is wrong for forwarded packets, such as the pods'. */
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
        checksum = 0xFFFF; /* 0 means "no checksum" in UDP, and in TCP the two are the same number */
    memcpy(packet + field, &checksum, 2);
    return FORWARD;
}

/* Writes the headers of piece `index`; returns the place and length of its payload. */
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
    /* Payload and header are summed separately; both begin at an even offset, as all headers are words. */
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

/* One read from the TUN device: decide, and add it to the batch, which points into `buffer` until it is flushed. */
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
