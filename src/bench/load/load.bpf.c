// The bench's load generator, its sink, and a counter of frames that only arrive.
//
//   generate_plain, generate_ipip, generate_vxlan   run by BPF_PROG_TEST_RUN on live frames: each run
//                    looks at the clock, and when a packet is due writes all of its headers and
//                    redirects it; else the frame goes back to its pool
//   sink             at tc's ingress hook: counts and drops the generator's packets, whatever tunnel
//                    header they have got; all else passes
//   discard          an XDP program that counts and drops everything: the generator's own limit
//
// Frames are used again as the receiver left them, so every header byte is written for every packet.
//
// Nothing is included, so that clang alone compiles this; the few kernel definitions below are uapi
// (linux/bpf.h) and cannot change.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) value *name

#define be16(host) ((u16)__builtin_bswap16(host))
#define be32(host) ((u32)__builtin_bswap32(host))

enum { XDP_DROP = 1, XDP_REDIRECT = 4 };
enum { TCX_NEXT = -1, TCX_DROP = 2 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

// The first members of struct __sk_buff; its data and data_end come after.
struct skb {
    u32 len;
    u32 other[18];
    u32 data;
    u32 data_end;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(u32 interface, u64 flags) = (void *)23;
static long (*const bpf_skb_pull_data)(struct skb *skb, u32 length) = (void *)39;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *packet, int delta) = (void *)65;

enum {
    ETHERNET = 14,
    IPV4 = 20,
    UDP = 8,
    VXLAN = 8,
    PROTOCOL_IPIP = 4,
    PROTOCOL_UDP = 17,
    VXLAN_PORT = 4789,
};

// Where the inner IPv4 header begins.
enum {
    INNER_PLAIN = ETHERNET,
    INNER_IPIP = ETHERNET + IPV4,
    INNER_VXLAN = ETHERNET + IPV4 + UDP + VXLAN + ETHERNET,
};

struct ipv4 {
    u8 version_length;
    u8 tos;
    u16 total_length;
    u16 identification;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u16 source[2];
    u16 destination[2];
};

struct udp {
    u16 source;
    u16 destination;
    u16 length;
    u16 checksum;
};

// What the generator's datagrams carry, in the machine's own byte order: 16 of the 18 bytes that the
// smallest frame has.
struct stamp {
    u16 magic;
    u16 trial;
    u32 sequence;
    u64 time;
};

enum { MAGIC = 0x7570, NO_TRIAL = 0, SIZES = 12, TEMPLATE = 104 };

// The generator's orders, and what it did. `template` holds a whole packet's headers; addresses and
// lengths that vary are zero in it, and the sums are those of its two IPv4 headers.
struct generator {
    u64 begin;       // nanoseconds, CLOCK_MONOTONIC
    u64 start;       // what is sent before this only warms the system up, and is of no trial
    u64 end;         // nothing is sent from here on
    u64 interval;    // between packets, in 1/1024 ns; 0: as fast as it goes
    u64 lag;         // how far behind the schedule it may be, same unit; what is behind is skipped
    u64 limit;       // packets to send at most
    u64 due;         // when the next packet goes, since the beginning, same unit
    u64 warmed;      // packets sent before the start
    u64 sent;        // packets sent from then on
    u64 bytes;
    u64 skipped;     // packets that were due while the program did not run
    u64 idle;        // runs that sent nothing
    u32 interface;
    u32 flow_mask;
    u32 destination_mask;
    u32 destination; // the first one, in host order
    u32 turn;        // which of the sizes is next
    u32 unused;
    u16 trial;
    u16 port;
    u16 inner_sum;
    u16 outer_sum;
    u16 sizes[SIZES]; // frame lengths without FCS, taken in turn
    u8 template[TEMPLATE];
};

struct counters {
    u64 received;
    u64 bytes;
    u64 duplicates;
    u64 reordered;
    u64 foreign; // of another trial, or of none
    u64 latency_sum;
    u64 latency_max;
};

struct flow {
    u32 trial;
    u32 next;
};

// Which of 64 sequence numbers have been seen; `epoch` says of which trial and round of the window.
struct seen {
    u64 bits;
    u32 epoch;
    u32 unused;
};

enum { FLOWS = 32768, WINDOW_WORDS = 16384, WINDOW_BITS = 20, BUCKETS = 1728 };

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct generator);
    __uint(max_entries, 1);
} generator SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, 1);
} trial SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, u32);
    __type(value, struct counters);
    __uint(max_entries, 1);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, BUCKETS);
} latency SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct flow);
    __uint(max_entries, FLOWS);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct seen);
    __uint(max_entries, WINDOW_WORDS);
} seen SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, 1);
} discarded SEC(".maps");

// Which of a number of flows a packet belongs to: each once in as many packets, in no simple order.
INLINE u32 flow_of(u32 sequence, u32 mask)
{
    return (sequence * 0x9e3779b1u) & mask;
}

INLINE u16 folded(u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~((sum & 0xffff) + (sum >> 16));
}

// Whether a packet is due, and if so moves the schedule on.
INLINE int is_due(struct generator *g, u64 now)
{
    if (now >= g->end || g->sent >= g->limit)
        return 0;
    if (!g->interval)
        return 1;
    u64 elapsed = (now - g->begin) << 10;
    if (elapsed < g->due)
        return 0;
    u64 behind = elapsed - g->due;
    if (behind > g->lag) {
        u64 skipped = (behind - g->lag) / g->interval;
        if (now >= g->start)
            g->skipped += skipped;
        g->due += skipped * g->interval;
    }
    g->due += g->interval;
    return 1;
}

INLINE int generate(struct xdp_md *packet, const u32 inner)
{
    u32 first = 0;
    struct generator *g = bpf_map_lookup_elem(&generator, &first);
    if (!g)
        return XDP_DROP;
    u64 now = bpf_ktime_get_ns();
    if (!is_due(g, now)) {
        g->idle++;
        return XDP_DROP;
    }

    int measured = now >= g->start;
    u32 sequence = measured ? (u32)g->sent : (u32)g->warmed;
    u32 turn = g->turn;
    if (turn >= SIZES)
        turn = 0;
    g->turn = turn + 1;
    u32 length = g->sizes[turn];
    int cut = (int)length - (int)(packet->data_end - packet->data);
    if (cut && bpf_xdp_adjust_tail(packet, cut))
        return XDP_DROP;
    u8 *data = (void *)(unsigned long)packet->data;
    u8 *end = (void *)(unsigned long)packet->data_end;
    if (data + inner + IPV4 + UDP + sizeof(struct stamp) > end)
        return XDP_DROP;

    for (u32 at = 0; at + 2 <= inner + IPV4 + UDP; at += 2)
        *(u16 *)(data + at) = *(u16 *)(g->template + at);

    u32 flow = flow_of(sequence, g->flow_mask);
    struct ipv4 *ip = (void *)(data + inner);
    struct udp *udp = (void *)(ip + 1);
    struct stamp *stamp = (void *)(udp + 1);
    u32 destination = be32(g->destination + (flow & g->destination_mask));
    u16 total = be16((u16)(length - inner));
    ip->total_length = total;
    ip->destination[0] = (u16)destination;
    ip->destination[1] = (u16)(destination >> 16);
    ip->checksum = folded(g->inner_sum + total + (destination & 0xffff) + (destination >> 16));
    udp->source = be16((u16)(1024 + (flow & (FLOWS - 1))));
    udp->length = be16((u16)(length - inner - IPV4));
    stamp->magic = MAGIC;
    stamp->trial = measured ? g->trial : NO_TRIAL;
    stamp->sequence = sequence;
    stamp->time = now;

    if (inner != INNER_PLAIN) {
        struct ipv4 *outer = (void *)(data + ETHERNET);
        u16 outer_total = be16((u16)(length - ETHERNET));
        outer->total_length = outer_total;
        outer->checksum = folded(g->outer_sum + outer_total);
        if (inner == INNER_VXLAN) {
            struct udp *tunnel = (void *)(outer + 1);
            tunnel->source = be16((u16)(0xc000 | (flow & 0x3fff)));
            tunnel->length = be16((u16)(length - ETHERNET - IPV4));
        }
    }
    if (measured) {
        g->sent++;
        g->bytes += length;
    } else {
        g->warmed++;
    }
    return bpf_redirect(g->interface, 0);
}

SEC("xdp")
int generate_plain(struct xdp_md *packet)
{
    return generate(packet, INNER_PLAIN);
}

SEC("xdp")
int generate_ipip(struct xdp_md *packet)
{
    return generate(packet, INNER_IPIP);
}

SEC("xdp")
int generate_vxlan(struct xdp_md *packet)
{
    return generate(packet, INNER_VXLAN);
}

SEC("xdp")
int discard(__attribute__((unused)) struct xdp_md *packet)
{
    u32 first = 0;
    u64 *count = bpf_map_lookup_elem(&discarded, &first);
    if (count)
        ++*count;
    return XDP_DROP;
}

// 64 buckets for each power of two, so that a bucket's width is under 1.6 % of its value.
INLINE u32 bucket_of(u64 latency)
{
    u32 value = latency > 0xffffffff ? 0xffffffff : (u32)latency;
    u32 shift = 0, rest = value >> 6;
    for (u32 step = 16; step; step /= 2) {
        if (rest >> step) {
            shift += step;
            rest >>= step;
        }
    }
    shift += rest;
    if (shift == 0)
        return value;
    return shift * 64 + ((value >> (shift - 1)) - 64);
}

INLINE int is_duplicate(u32 trial, u32 sequence)
{
    u32 index = (sequence >> 6) & (WINDOW_WORDS - 1);
    u32 epoch = (trial << 12 | sequence >> WINDOW_BITS) + 1;
    struct seen *word = bpf_map_lookup_elem(&seen, &index);
    if (!word)
        return 0;
    if (word->epoch != epoch) {
        word->epoch = epoch;
        word->bits = 0;
    }
    u64 bit = 1ull << (sequence & 63);
    return (__sync_fetch_and_or(&word->bits, bit) & bit) != 0;
}

// RFC 4737: reordered is what comes after a packet of its flow that was sent later.
INLINE int is_reordered(u32 trial, u32 flow, u32 sequence)
{
    u32 index = flow & (FLOWS - 1);
    struct flow *state = bpf_map_lookup_elem(&flows, &index);
    if (!state)
        return 0;
    if (state->trial != trial) {
        state->trial = trial;
        state->next = 0;
    }
    if (sequence < state->next)
        return 1;
    state->next = sequence + 1;
    return 0;
}

INLINE void take(const struct stamp *stamp, u32 length, u32 now_trial, u32 flow_mask)
{
    u32 first = 0;
    struct counters *c = bpf_map_lookup_elem(&counters, &first);
    if (!c)
        return;
    if (stamp->trial != (u16)now_trial) {
        c->foreign++;
        return;
    }
    u64 time = bpf_ktime_get_ns() - stamp->time;
    u32 sequence = stamp->sequence;
    if (is_duplicate(now_trial, sequence)) {
        c->duplicates++;
        return;
    }
    c->received++;
    c->bytes += length;
    c->reordered += is_reordered(now_trial, flow_of(sequence, flow_mask), sequence);
    c->latency_sum += time;
    if (time > c->latency_max)
        c->latency_max = time;
    u32 bucket = bucket_of(time);
    u64 *count = bpf_map_lookup_elem(&latency, &bucket);
    if (count)
        ++*count;
}

INLINE const struct stamp *stamp_at(const u8 *data, const u8 *end, const u32 inner, u16 port)
{
    const struct ipv4 *ip = (const void *)(data + inner);
    const struct udp *udp = (const void *)(ip + 1);
    const struct stamp *stamp = (const void *)(udp + 1);
    if ((const u8 *)(stamp + 1) > end || ip->protocol != PROTOCOL_UDP || udp->destination != be16(port))
        return 0;
    return stamp->magic == MAGIC ? stamp : 0;
}

SEC("classifier")
int sink(struct skb *skb)
{
    u32 first = 0;
    const u32 *now_trial = bpf_map_lookup_elem(&trial, &first);
    const struct generator *g = bpf_map_lookup_elem(&generator, &first);
    if (!now_trial || !g)
        return TCX_NEXT;
    u32 wanted = INNER_VXLAN + IPV4 + UDP + sizeof(struct stamp);
    if (skb->data_end - skb->data < wanted)
        bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted);
    const u8 *data = (void *)(unsigned long)skb->data;
    const u8 *end = (void *)(unsigned long)skb->data_end;
    if (data + ETHERNET + IPV4 + UDP > end || *(u16 *)(data + 12) != be16(0x0800))
        return TCX_NEXT;

    const struct ipv4 *outer = (const void *)(data + ETHERNET);
    const struct udp *udp = (const void *)(outer + 1);
    const struct stamp *stamp = 0;
    if (outer->protocol == PROTOCOL_IPIP)
        stamp = stamp_at(data, end, INNER_IPIP, g->port);
    else if (outer->protocol == PROTOCOL_UDP && udp->destination == be16(VXLAN_PORT))
        stamp = stamp_at(data, end, INNER_VXLAN, g->port);
    else
        stamp = stamp_at(data, end, INNER_PLAIN, g->port);
    if (!stamp)
        return TCX_NEXT;
    take(stamp, skb->len, *now_trial, g->flow_mask);
    return TCX_DROP;
}

// No helper above is reserved for GPL programs (bpf_ktime_get_ns since Linux 5.8).
SEC("license") const char _license[] = "Apache-2.0";
