/* Moves packets between a TUN device and a UDP socket in bulk. Decides exactly as forwarder.py does, and nothing else.
 *
 *   TUN -> UDP   one read gives a TCP super-packet of up to 64 KiB behind a virtio_net_hdr. It is validated, decided
 *                once, cut into the packets that a peer expects, and these are sent by one sendmsg (UDP_SEGMENT),
 *                headers from a scratch array, payload from the read buffer.
 *   UDP -> TUN   one receive gives many datagrams of one peer (UDP_GRO). Each is validated and decided separately;
 *                runs of consecutive segments of one flow are written to the TUN device as one super-packet.
 *
 * Two threads: the mover, which handles both directions, and the helper, which takes over the second one while both are
 * busy. They share only the rules, which are replaced as a whole. No allocation per packet.
 *
 * One translation unit: the compiler sees everything, the reader one part at a time, along the path of a packet. */
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
#include "limits.h"
#include "bytes.h"
#include "rules.c"
#include "verdict.c"
#include "outlet.c"
#include "segment.c"
#include "coalesce.c"
#include "busy_poll.c"
#include "pump.c"
#include "trial.c"
