// The XDP programs that decide which packets leave the kernel for an AF_XDP socket.
//
//   steer_workload   everything, to the socket of the queue that it arrived on
//   steer_uplink     tunnel packets to this node, ICMP errors about its own tunnel packets, and packets
//                    into its blocks; all else is the kernel's
//
// Packets that are ours are first shown to the fast path (fast.bpf.c), where the node has one.
//
// A packet that is not understood goes to the kernel, as does every packet of a queue without a
// socket: the node keeps its SSH, its BGP and its neighbour discovery whatever happens here.

#include "kernel.bpf.h"

// Ports and addresses in every map are in network byte order.
struct config {
    u16 device_address[3];
    u16 vxlan_port;
    // Those of bridges; the first 0 ends them.
    u16 more_vxlan_ports[7];
};

struct ipv6_address {
    u32 words[4];
};

struct ipv4_prefix {
    u32 length;
    u32 address;
};

struct ipv6_prefix {
    u32 length;
    struct ipv6_address address;
};

// What fragments of one datagram have in common (RFC 791, RFC 8200 section 4.5), the protocol being UDP;
// IPv4 addresses as IPv6 has them (RFC 4291 section 2.5.5.2).
struct datagram {
    struct ipv6_address source;
    struct ipv6_address destination;
    u32 identification;
};

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, 64);
} sockets SEC(".maps");

// The fast path, or nothing.
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, 1);
} fast_path SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct config);
    __uint(max_entries, 1);
} config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, u32);
    __type(value, u8);
    __uint(max_entries, 256);
} node_ipv4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct ipv6_address);
    __type(value, u8);
    __uint(max_entries, 256);
} node_ipv6 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct ipv4_prefix);
    __type(value, u8);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} local_ipv4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct ipv6_prefix);
    __type(value, u8);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} local_ipv6 SEC(".maps");

// Datagrams whose first fragment has come: when, the lowest bit of which says whether it was VXLAN.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct datagram);
    __type(value, u64);
    __uint(max_entries, 4096);
} fragmented SEC(".maps");

// Who has sent a first fragment of VXLAN, and when.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct ipv6_address);
    __type(value, u64);
    __uint(max_entries, 1024);
} fragmenters SEC(".maps");

// As long as the reassembly that the fragments are stolen for.
static const u64 FRAGMENT_LIFETIME_NS = 30ull * 1000 * 1000 * 1000;

INLINE int steal(struct xdp_md *packet)
{
    // Comes back only if there is none.
    bpf_tail_call(packet, &fast_path, 0);
    return bpf_redirect_map(&sockets, packet->rx_queue_index, XDP_PASS);
}

INLINE int is_recent(const u64 *since)
{
    return since && bpf_ktime_get_ns() - *since < FRAGMENT_LIFETIME_NS;
}

// A later fragment goes where its datagram's first one went. Where that is still to come, it is held for
// VXLAN if its sender has sent fragments of VXLAN of late: some send the last fragment first.
INLINE int is_fragmented_vxlan(const struct datagram *key)
{
    const u64 *since = bpf_map_lookup_elem(&fragmented, key);
    if (is_recent(since))
        return *since & 1;
    return is_recent(bpf_map_lookup_elem(&fragmenters, &key->source));
}

INLINE void remember_fragmented(const struct datagram *key, int vxlan)
{
    u64 now = (bpf_ktime_get_ns() & ~1ull) | (vxlan ? 1 : 0);

    bpf_map_update_elem(&fragmented, key, &now, BPF_ANY);
    if (vxlan)
        bpf_map_update_elem(&fragmenters, &key->source, &now, BPF_ANY);
}

INLINE int is_vxlan(const struct udp *udp, const void *end, const struct config *config)
{
    if ((const void *)(udp + 1) > end)
        return 0;
    u16 port = udp->destination;
    if (port == config->vxlan_port)
        return 1;
#pragma unroll
    for (int i = 0; i < 7; i++) {
        if (!config->more_vxlan_ports[i])
            return 0;
        if (config->more_vxlan_ports[i] == port)
            return 1;
    }
    return 0;
}

// Only a datagram's first fragment has the ports; the later ones go where the first one went.
INLINE int is_vxlan_over_ipv4(const struct ipv4 *ip, u32 header_length, const void *end,
                              const struct config *config)
{
    u16 fragment = ip->fragment;
    struct datagram key = {
        {{0, 0, be32(0xffff), ip->source}},
        {{0, 0, be32(0xffff), ip->destination}},
        ip->identification,
    };

    if (fragment & be16(IPV4_FRAGMENT_OFFSET))
        return is_fragmented_vxlan(&key);
    int vxlan = is_vxlan((const void *)ip + header_length, end, config);
    if (fragment & be16(IPV4_MORE_FRAGMENTS))
        remember_fragmented(&key, vxlan);
    return vxlan;
}

INLINE struct ipv6_address address_of(const u32 *words)
{
    struct ipv6_address address = {{words[0], words[1], words[2], words[3]}};
    return address;
}

// The same over IPv6, for a fragment header right behind the fixed one.
INLINE int is_vxlan_fragment_over_ipv6(const struct ipv6 *ip, const void *end,
                                       const struct config *config)
{
    const struct ipv6_fragment *header = (const void *)(ip + 1);

    if ((const void *)(header + 1) > end || header->next_header != PROTOCOL_UDP)
        return 0;
    struct datagram key = {address_of(ip->source), address_of(ip->destination), header->identification};
    if (header->offset & be16(IPV6_FRAGMENT_OFFSET))
        return is_fragmented_vxlan(&key);
    int vxlan = is_vxlan((const void *)(header + 1), end, config);
    if (header->offset & be16(IPV6_MORE_FRAGMENTS))
        remember_fragmented(&key, vxlan);
    return vxlan;
}

// Whether an error says that a packet did not arrive: unreachable, too big, or too many hops.
INLINE int is_lost(const struct icmp *icmp)
{
    return icmp->type == ICMP_DESTINATION_UNREACHABLE ||
           (icmp->type == ICMP_TIME_EXCEEDED && icmp->code == ICMP_TTL_EXCEEDED);
}

INLINE int is_lost_ipv6(const struct icmp *icmp)
{
    return icmp->type == ICMPV6_DESTINATION_UNREACHABLE || icmp->type == ICMPV6_PACKET_TOO_BIG ||
           (icmp->type == ICMPV6_TIME_EXCEEDED && icmp->code == ICMPV6_HOP_LIMIT_EXCEEDED);
}

// Whether this is an error about a tunnel packet of ours: only its sender can act on it, and that is not
// the kernel. Errors about the kernel's own packets are none.
INLINE int is_about_our_tunnel(const struct ipv4 *ip, u32 header_length, const void *end,
                               const struct config *config)
{
    const struct icmp *icmp = (const void *)ip + header_length;
    const struct ipv4 *quoted = (const void *)(icmp + 1);

    if (ip->fragment & be16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
        return 0;
    if ((const void *)(quoted + 1) > end || !is_lost(icmp))
        return 0;
    // Our outer headers have no options.
    if (quoted->version_length != 0x45)
        return 0;
    u32 source = quoted->source;
    if (!bpf_map_lookup_elem(&node_ipv4, &source))
        return 0;
    if (quoted->protocol == PROTOCOL_IPIP)
        return 1;
    return quoted->protocol == PROTOCOL_UDP && is_vxlan((const void *)(quoted + 1), end, config);
}

INLINE int is_ours_ipv4(const struct ipv4 *ip, const void *end, const struct config *config)
{
    if ((const void *)(ip + 1) > end || ip->version_length >> 4 != 4)
        return 0;
    u32 header_length = (ip->version_length & 0x0f) * 4;
    if (header_length < sizeof(*ip) || (const void *)ip + header_length > end)
        return 0;

    struct ipv4_prefix destination = {32, ip->destination};
    if (bpf_map_lookup_elem(&local_ipv4, &destination))
        return 1;
    if (ip->protocol != PROTOCOL_IPIP && ip->protocol != PROTOCOL_UDP && ip->protocol != PROTOCOL_ICMP)
        return 0;
    if (!bpf_map_lookup_elem(&node_ipv4, &destination.address))
        return 0;
    if (ip->protocol == PROTOCOL_ICMP)
        return is_about_our_tunnel(ip, header_length, end, config);
    return ip->protocol == PROTOCOL_IPIP || is_vxlan_over_ipv4(ip, header_length, end, config);
}

// The same over IPv6. The quoted packet may be a first fragment: one that was cut for a narrow path.
INLINE int is_about_our_tunnel_ipv6(const struct ipv6 *ip, const void *end, const struct config *config)
{
    const struct icmp *icmp = (const void *)(ip + 1);
    const struct ipv6 *quoted = (const void *)(icmp + 1);

    if ((const void *)(quoted + 1) > end || !is_lost_ipv6(icmp))
        return 0;
    struct ipv6_address source = address_of(quoted->source);
    if (!bpf_map_lookup_elem(&node_ipv6, &source))
        return 0;
    if (quoted->next_header == PROTOCOL_UDP)
        return is_vxlan((const void *)(quoted + 1), end, config);
    const struct ipv6_fragment *header = (const void *)(quoted + 1);
    return quoted->next_header == PROTOCOL_FRAGMENT && (const void *)(header + 1) <= end &&
           header->next_header == PROTOCOL_UDP && !(header->offset & be16(IPV6_FRAGMENT_OFFSET)) &&
           is_vxlan((const void *)(header + 1), end, config);
}

INLINE int is_ours_ipv6(const struct ipv6 *ip, const void *end, const struct config *config)
{
    if ((const void *)(ip + 1) > end || (*(const u8 *)ip) >> 4 != 6)
        return 0;

    struct ipv6_prefix destination = {128, {{ip->destination[0], ip->destination[1],
                                             ip->destination[2], ip->destination[3]}}};
    if (bpf_map_lookup_elem(&local_ipv6, &destination))
        return 1;
    if (ip->next_header != PROTOCOL_UDP && ip->next_header != PROTOCOL_FRAGMENT &&
        ip->next_header != PROTOCOL_ICMPV6)
        return 0;
    if (!bpf_map_lookup_elem(&node_ipv6, &destination.address))
        return 0;
    if (ip->next_header == PROTOCOL_FRAGMENT)
        return is_vxlan_fragment_over_ipv6(ip, end, config);
    if (ip->next_header == PROTOCOL_ICMPV6)
        return is_about_our_tunnel_ipv6(ip, end, config);
    return is_vxlan((const void *)(ip + 1), end, config);
}

SEC("xdp")
int steer_workload(struct xdp_md *packet)
{
    return steal(packet);
}

SEC("xdp")
int steer_uplink(struct xdp_md *packet)
{
    const struct ethernet *ethernet = (void *)(unsigned long)packet->data;
    const void *end = (void *)(unsigned long)packet->data_end;
    u32 first = 0;
    const struct config *settings = bpf_map_lookup_elem(&config, &first);

    if (!settings || (const void *)(ethernet + 1) > end)
        return XDP_PASS;
    if (ethernet->destination[0] != settings->device_address[0] ||
        ethernet->destination[1] != settings->device_address[1] ||
        ethernet->destination[2] != settings->device_address[2])
        return XDP_PASS;

    int ours = 0;
    if (ethernet->type == be16(ETHERTYPE_IPV4))
        ours = is_ours_ipv4((const void *)(ethernet + 1), end, settings);
    else if (ethernet->type == be16(ETHERTYPE_IPV6))
        ours = is_ours_ipv6((const void *)(ethernet + 1), end, settings);
    return ours ? steal(packet) : XDP_PASS;
}

// No helper above is reserved for GPL programs (bpf_ktime_get_ns since Linux 5.8).
SEC("license") const char _license[] = "Apache-2.0";
