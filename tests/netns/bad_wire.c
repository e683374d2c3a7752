/* A wire between two network devices that does to overlay datagrams what bad networks do: bad_wire A B KIND EVERY.
 *
 * Every frame that comes to one device leaves by the other. Of the IPv4 datagrams to UDP port 8285, one of EVERY is
 *   drop      lost;
 *   reorder   held back until LATE others of its direction have passed;
 *   burst     the first of LATE that pass in reversed order;
 *   flip      passed on with one bit of the UDP payload changed. Every second one loses its outer checksum as well, as
 *             from a sender without checksums, so that only the inner ones can tell.
 * What is held longer than 5 ms passes. Prints «ready», and at its end (SIGTERM) how many datagrams it did it to.
 * The devices' offloads must be off: frames pass as they are. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME = 2048, LATE = 6, PAYLOAD = 14 + 20 + 8, PORT = 8285, FRAMES_PER_TURN = 64, HOLD_MS = 5 };

struct way {
    int from, to;
    unsigned seen;
    unsigned held, passed_since; /* frames that wait, and how many have passed since the first */
    size_t size[LATE];
    uint8_t frame[LATE][FRAME];
};

static volatile sig_atomic_t ended;
static unsigned long done;
static uint64_t seed = 88172645463325252u;

static void end(int signal_number)
{
    (void)signal_number;
    ended = 1;
}

static uint64_t random_number(void) /* xorshift: the same every time */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static int open_device(const char *name)
{
    int descriptor = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq promiscuous = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    int room = 32 << 20, one = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(descriptor, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(descriptor, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0) {
        perror(name);
        exit(1);
    }
    return descriptor;
}

static void pass(const struct way *way, const uint8_t *frame, size_t size)
{
    while (send(way->to, frame, size, 0) < 0 && !ended) {
        struct pollfd room = {.fd = way->to, .events = POLLOUT};
        poll(&room, 1, 10);
    }
}

static bool is_overlay(const uint8_t *frame, size_t size)
{
    return size > PAYLOAD && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == IPPROTO_UDP &&
           (frame[36] << 8 | frame[37]) == PORT;
}

static void hold(struct way *way, const uint8_t *frame, size_t size)
{
    if (way->held == 0)
        way->passed_since = 0;
    memcpy(way->frame[way->held], frame, size);
    way->size[way->held++] = size;
}

static void release(struct way *way)
{
    while (way->held > 0) {
        way->held--;
        pass(way, way->frame[way->held], way->size[way->held]);
    }
}

static void flip(uint8_t *frame, size_t size)
{
    size_t bit = random_number() % ((size - PAYLOAD) * 8);
    frame[PAYLOAD + bit / 8] ^= (uint8_t)(1 << bit % 8);
    if (done % 2 == 0)
        memset(frame + PAYLOAD - 2, 0, 2);
}

static void take(struct way *way, uint8_t *frame, size_t size, const char *kind, unsigned every)
{
    if (!is_overlay(frame, size)) {
        pass(way, frame, size);
        return;
    }
    bool chosen = ++way->seen % every == 0;
    done += chosen;
    if (!strcmp(kind, "drop")) {
        if (!chosen)
            pass(way, frame, size);
    } else if (!strcmp(kind, "flip")) {
        if (chosen)
            flip(frame, size);
        pass(way, frame, size);
    } else if (!strcmp(kind, "reorder")) {
        if (chosen && way->held == 0) {
            hold(way, frame, size);
            return;
        }
        pass(way, frame, size);
        if (way->held > 0 && ++way->passed_since == LATE)
            release(way);
    } else { /* burst */
        if (!chosen && way->held == 0) {
            pass(way, frame, size);
            return;
        }
        hold(way, frame, size);
        if (way->held == LATE)
            release(way);
    }
}

static bool carry(struct way *way, const char *kind, unsigned every)
{
    uint8_t frame[FRAME];
    bool any = false;
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        ssize_t size = recv(way->from, frame, sizeof frame, MSG_TRUNC);
        if (size < 0)
            break;
        if ((size_t)size > sizeof frame) {
            fprintf(stderr, "bad_wire: a frame of %zd bytes: offloads are on\n", size);
            exit(1);
        }
        take(way, frame, (size_t)size, kind, every);
        any = true;
    }
    return any;
}

int main(int count, char **arguments)
{
    if (count != 5 || atoi(arguments[4]) < 1) {
        fprintf(stderr, "usage: bad_wire DEVICE DEVICE drop|reorder|burst|flip EVERY\n");
        return 2;
    }
    static struct way ways[2];
    const char *kind = arguments[3];
    unsigned every = (unsigned)atoi(arguments[4]);
    ways[0].from = ways[1].to = open_device(arguments[1]);
    ways[1].from = ways[0].to = open_device(arguments[2]);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = end}, NULL);
    puts("ready");
    fflush(stdout);
    while (!ended) {
        bool any = carry(&ways[0], kind, every);
        any |= carry(&ways[1], kind, every);
        if (any)
            continue;
        struct pollfd descriptors[2] = {{.fd = ways[0].from, .events = POLLIN}, {.fd = ways[1].from, .events = POLLIN}};
        if (poll(descriptors, 2, HOLD_MS) == 0)
            for (int i = 0; i < 2; i++)
                release(&ways[i]);
    }
    printf("%lu\n", done);
    return 0;
}
