/* The least that a data path in user space can do, to measure others by: relay DEVICE OWN_ADDRESS PEER_ADDRESS PORT.
 *
 * Reads a packet from a TUN device and sends it as one datagram; receives a datagram and writes it to the device. Two
 * threads that sleep in these calls; no checks, no table, no offloads, one peer, four system calls for a round trip. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int tun, udp;
static struct sockaddr_in peer;

static void *carry_out(void *nothing)
{
    static char packet[65536];
    for (;;) {
        ssize_t size = read(tun, packet, sizeof packet);
        if (size > 0 && sendto(udp, packet, (size_t)size, 0, (struct sockaddr *)&peer, sizeof peer) < 0)
            perror("sendto");
    }
    return nothing;
}

static void carry_in(void)
{
    static char packet[65536];
    for (;;) {
        ssize_t size = recv(udp, packet, sizeof packet, 0);
        if (size > 0 && write(tun, packet, (size_t)size) < 0)
            perror("write");
    }
}

int main(int count, char **arguments)
{
    if (count != 5) {
        fprintf(stderr, "usage: relay DEVICE OWN_ADDRESS PEER_ADDRESS PORT\n");
        return 2;
    }
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strncpy(request.ifr_name, arguments[1], IFNAMSIZ - 1);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[4]))};
    peer = own;
    own.sin_addr.s_addr = inet_addr(arguments[2]);
    peer.sin_addr.s_addr = inet_addr(arguments[3]);
    tun = open("/dev/net/tun", O_RDWR);
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    pthread_t thread;
    if (ioctl(tun, TUNSETIFF, &request) != 0 || bind(udp, (struct sockaddr *)&own, sizeof own) != 0 ||
        pthread_create(&thread, NULL, carry_out, NULL) != 0) {
        perror("relay");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    carry_in();
}
