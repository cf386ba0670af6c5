// What the XDP programs share: the kernel's interface, and the headers that they read.
//
// Nothing of the system's is included, so that clang alone compiles this; the few kernel definitions
// below are uapi (linux/bpf.h) and cannot change.

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

enum { XDP_DROP = 1, XDP_PASS = 2, XDP_REDIRECT = 4 };
enum {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PROG_ARRAY = 3,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_LPM_TRIE = 11,
    BPF_MAP_TYPE_DEVMAP = 14,
    BPF_MAP_TYPE_XSKMAP = 17,
};
enum { BPF_ANY = 0, BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1024 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) =
    (void *)2;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_tail_call)(void *packet, void *map, u32 index) = (void *)12;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *packet, int delta) = (void *)44;
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *packet, int delta) = (void *)65;

enum {
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86dd,
    PROTOCOL_ICMP = 1,
    PROTOCOL_IPIP = 4,
    PROTOCOL_UDP = 17,
    PROTOCOL_FRAGMENT = 44,
    PROTOCOL_ICMPV6 = 58,
    IPV4_MORE_FRAGMENTS = 0x2000,
    IPV4_FRAGMENT_OFFSET = 0x1fff,
    ICMP_DESTINATION_UNREACHABLE = 3,
    ICMP_TIME_EXCEEDED = 11,
    ICMP_TTL_EXCEEDED = 0,
    IPV6_MORE_FRAGMENTS = 0x0001,
    IPV6_FRAGMENT_OFFSET = 0xfff8,
    ICMPV6_DESTINATION_UNREACHABLE = 1,
    ICMPV6_PACKET_TOO_BIG = 2,
    ICMPV6_TIME_EXCEEDED = 3,
    ICMPV6_HOP_LIMIT_EXCEEDED = 0,
};

struct ethernet {
    u16 destination[3];
    u16 source[3];
    u16 type;
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
    u32 source;
    u32 destination;
};

// Addresses are read in words of four bytes: an Ethernet header leaves them no better aligned.
struct ipv6 {
    u32 version_class_label;
    u16 payload_length;
    u8 next_header;
    u8 hop_limit;
    u32 source[4];
    u32 destination[4];
};

struct ipv6_fragment {
    u8 next_header;
    u8 reserved;
    u16 offset;
    u32 identification;
};

struct udp {
    u16 source;
    u16 destination;
    u16 length;
    u16 checksum;
};

struct icmp {
    u8 type;
    u8 code;
    u16 checksum;
    u32 rest;
};

struct vxlan {
    u8 flags;
    u8 reserved[3];
    u8 vni[3];
    u8 reserved_too;
};
