/* Numbers in network byte order, and ones' complement sums (RFC 1071). */

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
