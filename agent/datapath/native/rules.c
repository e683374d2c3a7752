/* Rules: the node and its forwarding table, replaced as a whole; the twin of forwarding_table.py. */

struct native_rules {
    struct native_node node;
    uint32_t broadcast;
    size_t lengths;
    struct {
        uint32_t mask;
        size_t first, count;
    } by_length[33]; /* the longest first; ranges of by_network */
    size_t count;
    struct native_subnet *by_network; /* by mask, the longest first, then by network */
    struct native_subnet *by_peer;    /* by address and port */
};

static int compare_numbers(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int compare_network(const void *left, const void *right)
{
    const struct native_subnet *a = left, *b = right;
    return a->mask == b->mask ? compare_numbers(a->network, b->network) : compare_numbers(b->mask, a->mask);
}

static int compare_peer(const void *left, const void *right)
{
    const struct native_subnet *a = left, *b = right;
    return a->address == b->address ? a->port - b->port : compare_numbers(a->address, b->address);
}

native_rules *native_rules_new(const struct native_node *node, const struct native_subnet *subnets, size_t count)
{
    /* One block: one failure to handle, and one pointer to free. */
    native_rules *rules = calloc(1, sizeof *rules + 2 * count * sizeof *subnets);
    if (rules == NULL)
        return NULL;
    rules->node = *node;
    rules->broadcast = node->network | ~node->mask;
    rules->count = count;
    rules->by_network = (struct native_subnet *)(rules + 1);
    rules->by_peer = rules->by_network + count;
    if (count == 0)
        return rules;
    memcpy(rules->by_network, subnets, count * sizeof *subnets);
    memcpy(rules->by_peer, subnets, count * sizeof *subnets);
    qsort(rules->by_network, count, sizeof *subnets, compare_network);
    qsort(rules->by_peer, count, sizeof *subnets, compare_peer);
    for (size_t i = 0; i < count; i++) {
        uint32_t mask = rules->by_network[i].mask;
        if (rules->lengths == 0 || rules->by_length[rules->lengths - 1].mask != mask) {
            if (rules->lengths == 33)
                break; /* more masks than lengths: Python never sends this */
            rules->by_length[rules->lengths].mask = mask;
            rules->by_length[rules->lengths].first = i;
            rules->lengths++;
        }
        rules->by_length[rules->lengths - 1].count++;
    }
    return rules;
}

void native_rules_free(native_rules *rules)
{
    free(rules);
}

/* Returns the peer with the longest matching subnet, or NULL. */
static const struct native_subnet *lookup(const native_rules *rules, uint32_t destination)
{
    for (size_t i = 0; i < rules->lengths; i++) {
        uint32_t wanted = destination & rules->by_length[i].mask;
        const struct native_subnet *low = rules->by_network + rules->by_length[i].first;
        size_t count = rules->by_length[i].count;
        while (count > 0) {
            const struct native_subnet *middle = low + count / 2;
            if (middle->network == wanted)
                return middle;
            if (middle->network < wanted) {
                low = middle + 1;
                count -= count / 2 + 1;
            } else {
                count /= 2;
            }
        }
    }
    return NULL;
}

/* Returns the first subnet of the peer with this outer address and port, or NULL; the others follow it in `by_peer`. */
static const struct native_subnet *first_of_peer(const native_rules *rules, uint32_t address, uint16_t port)
{
    struct native_subnet wanted = {.address = address, .port = port};
    const struct native_subnet *low = rules->by_peer;
    size_t count = rules->count;
    while (count > 0) {
        const struct native_subnet *middle = low + count / 2;
        if (compare_peer(middle, &wanted) < 0) {
            low = middle + 1;
            count -= count / 2 + 1;
        } else {
            count /= 2;
        }
    }
    bool found = low < rules->by_peer + rules->count && low->address == address && low->port == port;
    return found ? low : NULL;
}

static bool peer_holds(const native_rules *rules, const struct native_subnet *subnet, uint32_t source)
{
    uint32_t address = subnet->address;
    uint16_t port = subnet->port;
    for (; subnet < rules->by_peer + rules->count && subnet->address == address && subnet->port == port; subnet++)
        if ((source & subnet->mask) == subnet->network)
            return true;
    return false;
}
