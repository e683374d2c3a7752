/* Sizes, limits and tuning: every number of the native data path, with its unit and source. */

/* What packets look like on the wire: RFC 791, 792, 768, 9293. */
enum wire {
    MAX_PACKET = 65535,            /* bytes: IPv4 total length */
    MAX_UDP_PAYLOAD = 65507,       /* bytes: 65,535 less the outer IPv4 and UDP headers */
    MAX_HEADERS = 60 + 60,         /* bytes: IPv4 and TCP, both with all options */
    ANSWER_ROOM = 20 + 8 + 60 + 8, /* bytes: IPv4, ICMP, the quoted header with all options and 8 bytes */
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    TCP_CWR = 0x80,
    TCP_CHECKSUM = 16, /* bytes: offset in the TCP header */
    UDP_CHECKSUM = 6,  /* bytes: offset in the UDP header */
    MORE_FRAGMENTS = 0x2000,
    FRAGMENT_OFFSET = 0x1FFF,
};

/* The kernel's limits. */
enum kernel_limits {
    MAX_PIECES = 64,             /* datagrams per send and per write; UDP_MAX_SEGMENTS of kernels before 6.9 */
    READ_SIZE = 10 + MAX_PACKET, /* bytes: one read of the TUN device, with its virtio header */
};

/* Chosen by measuring, docs/performance.md. */
enum tuning {
    ANSWERS_PER_S = 100,          /* ICMP errors; as python_pump.py */
    READS_PER_ROUND = 64,         /* packets, so that `stop` and new rules do not wait */
    RECEIVES_PER_CALL = 4,        /* messages */
    HAND_OVER_AFTER_ROUNDS = 16,  /* rounds without a pause until the helper takes one direction */
    HAND_BACK_AFTER_MS = 5,       /* of quiet */
    SPIN_LIMIT_NS = 50000,        /* the longest spin before sleeping */
    LONG_YIELD_NS = 100000,       /* a longer yield: other tasks need this core */
    BACK_OFF_MIN_NS = 1000000,    /* after a long yield; twice as long each time, */
    BACK_OFF_MAX_NS = 1000000000, /* up to this */
    BACK_OFF_DECAY = 64,          /* shorter by one part in so many with each packet caught by spinning */
    RATE_WINDOW_NS = 1000000,     /* over which packets are counted */
    STREAM_PACKETS = 50,          /* per window in one direction: a stream of small packets; none is waited for */
    GATHER_NS = 100000,           /* gathering time of such a stream */
    SOON_NS = 200000,             /* a packet sooner than this favours spinning */
    SPIN_LEVEL = 4,               /* minimum level for spinning */
    SPIN_LEVEL_MAX = 16,
    CACHE_LINE = 64,                          /* bytes: each packet begins on a cache line of its own */
    READ_ROOM = 4 * (READ_SIZE + CACHE_LINE), /* bytes that are read before they are sent */
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
