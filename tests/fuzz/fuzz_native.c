/* Throws bytes at native.c: -DTUN_PATH for what the kernel hands over, without it for what peers send.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I agent/datapath/native [-DTUN_PATH] tests/fuzz/fuzz_native.c
 *
 * An input is a row of packets: one byte of choices, two bytes of length, the bytes. Some choices set right what a
 * fuzzer would never guess (addresses, lengths, checksums), so that it gets to what lies behind the checks. Besides
 * what the sanitizers see, every packet must be counted once and nothing larger than a packet may come out.
 */
#include "all.c"

enum { PACKETS = 80, LOG_ROOM = 4 << 20, PORT = 8285 };
enum { RIGHT_HEADER = 1, RIGHT_TRANSPORT = 2, FOLLOWS_LAST = 4, STRANGER = 8, MANY = 16 };

static native_rules *rules;
static uint8_t log_bytes[LOG_ROOM];

static void require(bool holds)
{
    if (!holds)
        __builtin_trap();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    const struct native_node node = {0x0A002E00, 0xFFFFFF00, 1472, PORT, 0};
    const struct native_subnet peers[] = {
        {0x0A005A00, 0xFFFFFF00, 0xC0A808E4, PORT},
        {0x0A005A40, 0xFFFFFFC0, 0xC0A808E5, PORT},
        {0x0A006000, 0xFFFFF000, 0xC0A808E4, PORT},
    };
    rules = native_rules_new(&node, peers, 3);
    require(rules != NULL);
    return 0;
}

static void set_right(uint8_t *packet, size_t size, unsigned choices, uint32_t source, uint32_t destination)
{
    if (size < 20)
        return;
    if (choices & RIGHT_HEADER) {
        packet[0] = (uint8_t)(0x40 | (packet[0] & 0xF));
        if ((packet[0] & 0xF) < 5 || (size_t)(packet[0] & 0xF) * 4 > size)
            packet[0] = 0x45;
        put_be16(packet + 2, (unsigned)size);
        put_be32(packet + 12, source);
        put_be32(packet + 16, destination);
        put_header_checksum(packet, (size_t)(packet[0] & 0xF) * 4);
    }
    size_t header = (size_t)(packet[0] & 0xF) * 4, field = packet[9] == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    if (choices & RIGHT_TRANSPORT && header >= 20 && header + field + 2 <= size) {
        put_be16(packet + header + field, 0);
        uint64_t sum = sum_pseudo_header(packet, packet[9], size - header);
        put_checksum(packet + header + field, sum_words(sum, packet + header, size - header));
    }
}

static void check_log(size_t used, bool cut)
{
    require(used <= LOG_ROOM);
    for (size_t at = 0; at < used;) {
        uint32_t length;
        memcpy(&length, log_bytes + at, 4);
        require(length <= MAX_PACKET + (cut ? 0 : sizeof(struct vnet_header)));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    uint8_t *data = malloc(size + 1), *end = data, *last = NULL;
    uint32_t sizes[PACKETS], addresses[PACKETS];
    uint16_t segments[PACKETS], ports[PACKETS];
    size_t count = 0, expected = 0, last_size = 0;
    require(data != NULL);
    while (size >= 3 && count < PACKETS) {
        unsigned choices = input[0];
        size_t length = be16(input + 1);
        input += 3;
        size -= 3;
        if (length > size)
            length = size;
        memcpy(end, input, length);
#ifdef TUN_PATH
        size_t before = sizeof(struct vnet_header);
        if (choices & RIGHT_HEADER && length >= before + 20) {
            put_be16(end + 6, 0);
            end[6] = 20; /* checksum_start, little endian: the usual one */
        }
        if (length > before)
            set_right(end + before, length - before, choices & ~RIGHT_TRANSPORT, 0x0A002E02,
                      choices & STRANGER ? 0x0A004D05 : 0x0A005A02);
        segments[count] = 0;
#else
        set_right(end, length, choices, 0x0A005A02, 0x0A002E02);
        if (choices & FOLLOWS_LAST && last != NULL && last_size == length && length >= 40) {
            size_t headers = 20 + (size_t)(last[32] >> 4) * 4;
            memcpy(end, last, headers < length ? headers : length);
            put_be16(end + 4, be16(last + 4) + 1u);
            if (headers < length)
                put_be32(end + 24, be32(last + 24) + (uint32_t)(length - headers));
            set_right(end, length, RIGHT_HEADER | RIGHT_TRANSPORT, 0x0A005A02, 0x0A002E02);
        }
        segments[count] = choices & MANY && length > 0 ? (uint16_t)(1 + length / (1 + choices / 32)) : 0;
#endif
        addresses[count] = choices & STRANGER ? 0x01020304 : 0xC0A808E4;
        ports[count] = PORT;
        expected += segments[count] && length > 0 ? (length + segments[count] - 1) / segments[count] : 1;
        sizes[count++] = (uint32_t)length;
        last = end;
        last_size = length;
        end += length;
        input += length;
        size -= length;
    }
    struct native_counters counters;
    struct native_offloads offloads = {1, 1, 1};
    uint64_t counted = 0;
#ifdef TUN_PATH
    size_t used = native_trial_out(rules, &offloads, data, sizes, count, &counters, log_bytes, LOG_ROOM);
    if (used != (size_t)-1)
        check_log(used, true);
    counted = counters.tx_packets;
    for (size_t i = 0; i < REASONS; i++)
        counted += counters.drops[i];
    require(counted >= expected); /* a super-packet counts by its pieces */
    (void)segments, (void)addresses, (void)ports;
#else
    size_t used = native_trial_in(rules, &offloads, data, sizes, segments, addresses, ports, count, &counters,
                                  log_bytes, LOG_ROOM);
    check_log(used, false);
    counted = counters.rx_packets;
    for (size_t i = 0; i < REASONS; i++)
        counted += counters.drops[i];
    require(counted == expected);
#endif
    free(data);
    return 0;
}
