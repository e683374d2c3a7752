/* The destination of packets: the kernel, or, in a trial, a log (trial.c). */
struct outlet {
    int tun, udp;
    struct native_offloads offloads;
    bool device_gone;
    const struct outlet_operations *to;
    void *trial; /* the trial's own; NULL if packets go to the kernel */
};

struct outlet_operations {
    /* Sends datagrams of `piece` bytes each, the last may be shorter; 0 for one of any size. False: see errno. */
    bool (*send)(struct outlet *outlet, struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                 uint16_t piece);
    /* Writes one packet or super-packet, behind its virtio header where the device has those. False: errno. */
    bool (*write)(struct outlet *outlet, struct iovec *parts, size_t count);
};

static bool send_to_kernel(struct outlet *outlet, struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                           uint16_t piece)
{
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

static bool write_to_kernel(struct outlet *outlet, struct iovec *parts, size_t count)
{
    ssize_t written;
    do
        written = writev(outlet->tun, parts, (int)count);
    while (written < 0 && errno == EINTR);
    if (written < 0 && (errno == EBADFD || errno == EBADF))
        outlet->device_gone = true;
    return written >= 0;
}

static const struct outlet_operations TO_KERNEL = {.send = send_to_kernel, .write = write_to_kernel};

static bool send_datagrams(struct outlet *outlet, struct iovec *parts, size_t count, uint32_t address, uint16_t port,
                           uint16_t piece)
{
    return outlet->to->send(outlet, parts, count, address, port, piece);
}

/* Writes one packet, or super-packet, to the TUN device; parts[0] is left for the virtio header. */
static bool write_packet(struct outlet *outlet, const struct vnet_header *vnet, struct iovec *parts, size_t count)
{
    parts[0] = (struct iovec){(void *)vnet, sizeof *vnet};
    if (!outlet->offloads.vnet_header) {
        parts++;
        count--;
    }
    return outlet->to->write(outlet, parts, count);
}

static const struct vnet_header PLAIN = {0};

static bool write_plain(struct outlet *outlet, const uint8_t *packet, size_t size)
{
    struct iovec parts[2] = {[1] = {(void *)packet, size}};
    return write_packet(outlet, &PLAIN, parts, 2);
}
