/* Sends junk to an overlay port: flood SOURCE TARGET PACKETS_PER_S SECONDS BUNDLE. Prints how many datagrams a second it
 * sent. BUNDLE datagrams leave by one send (UDP_SEGMENT); 1 is the dearest for both ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif

enum { PORT = 8285, BATCH = 32, SIZE = 200 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int count, char **arguments)
{
    int bundle = count == 6 ? atoi(arguments[5]) : 0;
    if (bundle < 1 || bundle > 64) {
        fprintf(stderr, "usage: flood SOURCE TARGET PACKETS_PER_S SECONDS BUNDLE\n");
        return 2;
    }
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {inet_addr(arguments[1])}};
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {inet_addr(arguments[2])}};
    if (bind(udp, (struct sockaddr *)&source, sizeof source) ||
        connect(udp, (struct sockaddr *)&target, sizeof target)) {
        perror("flood");
        return 1;
    }
    static char junk[64 * SIZE];
    struct iovec part = {junk, (size_t)(bundle * SIZE)};
    int size = SIZE;
    if (bundle > 1 && setsockopt(udp, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) != 0) {
        perror("UDP_SEGMENT");
        return 1;
    }
    struct mmsghdr messages[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_iov = &part;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    double rate = atof(arguments[3]), start = now_s(), end = start + atof(arguments[4]), sent = 0;
    for (double now = start; now < end; now = now_s()) {
        if (sent > (now - start) * rate) {
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
            continue;
        }
        int taken = sendmmsg(udp, messages, bundle > 1 ? 1 : BATCH, 0);
        if (taken > 0)
            sent += taken * bundle;
    }
    printf("%.0f\n", sent / (now_s() - start));
    return 0;
}
