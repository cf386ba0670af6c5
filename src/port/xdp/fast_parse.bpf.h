// Stages 1 and 2 of the fast path (fast.bpf.c): what a frame's headers say, and how far it is to be
// opened. UP, as there, is for all that is not plainly to be sent.

#include "fast_maps.bpf.h"

enum {
    PROTOCOL_TCP = 6,
    PROTOCOL_DCCP = 33,
    PROTOCOL_SCTP = 132,
    PROTOCOL_UDP_LITE = 136,
    IPV6_HOP_BY_HOP = 0,
    IPV6_ROUTING = 43,
    IPV6_FRAGMENT = 44,
    IPV6_DESTINATION_OPTIONS = 60,
    ICMPV6_FIRST_INFORMATIONAL = 128,
    ICMPV6_ROUTER_SOLICITATION = 133,
    ICMPV6_REDIRECT = 137,
    IPV4_DONT_FRAGMENT = 0x4000,
    TCP_CHECKSUM_AT = 16,
    TCP_LENGTH = 20,
    VXLAN_FLAG_VNI = 0x08,
    ECN_MASK = 3,
    ECN_NOT_ECT = 0,
    ECN_ECT_1 = 1,
    ECN_ECT_0 = 2,
    ECN_CE = 3,
};

// The packet that goes on, and what its header says after this router.
struct packet {
    u32 offset; // of its IP header, from the frame's start
    u32 length; // of header and payload
    u32 hash;
    u32 next_hop;
    u8 is_ipv6;
    u8 tos;
    u8 ttl;
    u8 protocol;
    u8 dont_fragment;
    u16 checksum; // IPv4: of the header as it is, host order
};

// What an outer header has said.
struct outer {
    u32 peer; // 0: there was none
    u8 tos;
    u16 ethertype; // of the inner frame; 0 in IP-in-IP
};

// All that is not plainly to be sent.
enum { UP = 0, GO_ON = 1 };

INLINE u16 folded(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)((sum & 0xffff) + (sum >> 16));
}

// RFC 1624 equation 3; everything in host order.
INLINE u16 updated(u16 checksum, u16 old_word, u16 new_word)
{
    u32 sum = (u16)~checksum + (u32)(u16)~old_word + new_word;
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~((sum & 0xffff) + (sum >> 16));
}

// The flow's hash, as src/wire/flow.rs.
static const u64 MULTIPLIER = 0x9e3779b97f4a7c15ull;

INLINE u64 mix(u64 hash, u64 word)
{
    u64 product = (hash ^ word ^ MULTIPLIER) * MULTIPLIER;
    return product ^ product >> 32;
}

INLINE u32 hash_of(u64 addresses, u32 ports, u8 protocol)
{
    return (u32)(mix(addresses, (u64)ports << 8 | protocol) * MULTIPLIER >> 32);
}

INLINE u16 vxlan_source_port(u32 hash)
{
    hash ^= hash << 16;
    return 49152 + (u16)((u64)hash * 16384 >> 32);
}

INLINE u32 flow_label(u32 hash)
{
    u32 label = (hash ^ hash >> 20) & 0xfffff;
    return label ? label : 1;
}

INLINE u64 pair(u32 first, u32 second)
{
    return (u64)first | (u64)second << 32;
}

INLINE int same_mac(const u16 *a, const u16 *b)
{
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

// "This network", loopback, multicast, class E.
INLINE int is_martian_ipv4(u32 address)
{
    u8 first = (u8)address;
    return first == 0 || first == 127 || first >= 224;
}

// Multicast, loopback, unspecified; and link-local, which stays on its link.
INLINE int is_martian_ipv6(const u32 *a)
{
    u32 last = a[3] & ~(u32)__builtin_bswap32(1);
    u16 first = be16((u16)a[0]);
    // IPv4-mapped ones are no addresses of packets, and the maps have IPv4's by them.
    return first >> 8 == 0xff || first >> 6 == 0xfe80 >> 6 || (a[0] | a[1] | a[2] | last) == 0 ||
           ((a[0] | a[1]) == 0 && a[2] == __builtin_bswap32(0xffff));
}

INLINE struct address mapped(u32 ipv4)
{
    return (struct address){{0, 0, __builtin_bswap32(0xffff), ipv4}};
}

INLINE struct address of_ipv6(const u32 *a)
{
    return (struct address){{a[0], a[1], a[2], a[3]}};
}

// A header without options, sound, whole and no fragment; its total length, or 0.
INLINE u32 sound_ipv4(const struct ipv4 *ip, const void *end, u32 available)
{
    if ((const void *)(ip + 1) > end || ip->version_length != 0x45)
        return 0;
    u32 length = be16(ip->total_length);
    if (length < sizeof(*ip) || length > available)
        return 0;
    if (ip->fragment & ~be16(IPV4_DONT_FRAGMENT))
        return 0;
    const u16 *words = (const void *)ip;
    u32 sum = 0;
#pragma unroll
    for (int i = 0; i < 10; i++)
        sum += words[i];
    if (folded(sum) != 0xffff)
        return 0;
    if (is_martian_ipv4(ip->source) || is_martian_ipv4(ip->destination))
        return 0;
    return length;
}

INLINE u32 sound_ipv6(const struct ipv6 *ip, const void *end, u32 available)
{
    if ((const void *)(ip + 1) > end || (*(const u8 *)ip) >> 4 != 6)
        return 0;
    u32 length = sizeof(*ip) + be16(ip->payload_length);
    if (length > available || is_martian_ipv6(ip->source) || is_martian_ipv6(ip->destination))
        return 0;
    return length;
}

// Whether workloads' datagrams to this port may be VXLAN of a network of the node's.
INLINE int is_fenced(const struct settings *settings, u16 destination)
{
#pragma unroll
    for (int i = 0; i < 10; i++) {
        if (!settings->fenced_ports[i])
            return 0;
        if (settings->fenced_ports[i] == destination)
            return 1;
    }
    return 0;
}

// Ports for the flow's hash in `ports`; UP if the transport header is not all there, has an unfinished
// checksum, or is what a workload must not send. `pseudo` is the sum of the addresses.
INLINE int read_transport(const struct port *port, const struct settings *settings, const void *header,
                          const void *end, const struct packet *p, u32 length, u64 pseudo, u32 *ports)
{
    const u16 *words = header;
    u16 checksum;

    *ports = 0;
    switch (p->protocol) {
    case PROTOCOL_TCP:
        if (length < TCP_LENGTH || header + TCP_LENGTH > end)
            return UP;
        checksum = words[TCP_CHECKSUM_AT / 2];
        break;
    case PROTOCOL_UDP:
        if (length < sizeof(struct udp) || header + sizeof(struct udp) > end)
            return UP;
        if (port->flags & PORT_WORKLOAD && is_fenced(settings, words[1]))
            return UP;
        checksum = words[3];
        break;
    case PROTOCOL_UDP_LITE:
    case PROTOCOL_SCTP:
    case PROTOCOL_DCCP:
        if (length < 4 || header + 4 > end)
            return UP;
        *ports = *(const u32 *)header;
        return GO_ON;
    default:
        return GO_ON;
    }
    *ports = *(const u32 *)header;
    if (port->flags & PORT_PARTIAL) {
        pseudo += be16(length) + be16((u16)p->protocol);
        if (folded(pseudo) == checksum)
            return UP;
    }
    return GO_ON;
}

INLINE int read_ipv4(const struct port *port, const struct settings *settings, const void *start,
                     const void *end, u32 available, struct packet *p)
{
    const struct ipv4 *ip = start;
    const void *header = ip + 1;
    u32 flow_ports;

    p->length = sound_ipv4(ip, end, available);
    if (!p->length)
        return UP;
    p->is_ipv6 = 0;
    p->tos = ip->tos;
    p->ttl = ip->ttl;
    p->protocol = ip->protocol;
    p->dont_fragment = ip->fragment != 0;
    p->checksum = be16(ip->checksum);
    if (port->flags & PORT_WORKLOAD) {
        if (p->protocol == PROTOCOL_IPIP)
            return UP;
        // An error may be about a tunnel packet.
        if (p->protocol == PROTOCOL_ICMP &&
            (header + 1 > end || *(const u8 *)header == ICMP_DESTINATION_UNREACHABLE ||
             *(const u8 *)header == ICMP_TIME_EXCEEDED))
            return UP;
    }
    if (!read_transport(port, settings, header, end, p, p->length - sizeof(*ip),
                        (u64)ip->source + ip->destination, &flow_ports))
        return UP;
    p->hash = hash_of(mix(0, pair(ip->source, ip->destination)), flow_ports, p->protocol);
    return GO_ON;
}

INLINE int read_ipv6(const struct port *port, const struct settings *settings, const void *start,
                     const void *end, u32 available, struct packet *p)
{
    const struct ipv6 *ip = start;
    const void *header = ip + 1;
    const u32 *a = ip->source, *b = ip->destination;
    u32 flow_ports;

    p->length = sound_ipv6(ip, end, available);
    if (!p->length)
        return UP;
    p->is_ipv6 = 1;
    p->tos = (u8)(be16(*(const u16 *)ip) >> 4);
    p->ttl = ip->hop_limit;
    p->protocol = ip->next_header;
    p->dont_fragment = 1;
    p->checksum = 0;
    if (p->protocol == IPV6_HOP_BY_HOP || p->protocol == IPV6_ROUTING ||
        p->protocol == IPV6_FRAGMENT || p->protocol == IPV6_DESTINATION_OPTIONS)
        return UP;
    // Neighbour discovery is the router's to answer, and a workload's error may be about a tunnel packet.
    if (p->protocol == PROTOCOL_ICMPV6) {
        if (header + 1 > end)
            return UP;
        u8 type = *(const u8 *)header;
        if (type >= ICMPV6_ROUTER_SOLICITATION && type <= ICMPV6_REDIRECT)
            return UP;
        if (port->flags & PORT_WORKLOAD && type < ICMPV6_FIRST_INFORMATIONAL)
            return UP;
    }
    u64 pseudo = (u64)a[0] + a[1] + a[2] + a[3] + b[0] + b[1] + b[2] + b[3];
    if (!read_transport(port, settings, header, end, p, p->length - sizeof(*ip), pseudo, &flow_ports))
        return UP;
    u64 addresses = mix(mix(mix(mix(0, pair(a[0], a[1])), pair(a[2], a[3])), pair(b[0], b[1])),
                        pair(b[2], b[3]));
    p->hash = hash_of(addresses, flow_ports, p->protocol);
    return GO_ON;
}

// The peer that may send tunnel packets from this address, or 0. Others that may are rare.
INLINE u32 peer_of(const struct address *address)
{
    const u32 *peer = bpf_map_lookup_elem(&peers, address);
    return peer ? *peer : 0;
}

// Takes UDP, VXLAN and inner Ethernet headers off in mind; `available` bytes follow the outer IP header.
INLINE int open_vxlan(const struct settings *settings, const u16 *vtep_mac, int zero_checksum,
                      const void *start, const void *end, u32 *available, struct outer *outer)
{
    const struct udp *udp = start;
    const struct vxlan *vxlan = (const void *)(udp + 1);
    const struct ethernet *inner = (const void *)(vxlan + 1);

    if ((const void *)(inner + 1) > end)
        return UP;
    u32 length = be16(udp->length);
    if (udp->destination != settings->vxlan_port || udp->checksum || !zero_checksum)
        return UP;
    if (length < VXLAN_ALL || length > *available)
        return UP;
    if (!(vxlan->flags & VXLAN_FLAG_VNI))
        return UP;
    if (settings->flags & STRICT_RESERVED_BITS &&
        (vxlan->flags != VXLAN_FLAG_VNI || vxlan->reserved[0] || vxlan->reserved[1] ||
         vxlan->reserved[2] || vxlan->reserved_too))
        return UP;
    if (vxlan->vni[0] != settings->vni[0] || vxlan->vni[1] != settings->vni[1] ||
        vxlan->vni[2] != settings->vni[2])
        return UP;
    if (!same_mac(inner->destination, vtep_mac))
        return UP;
    outer->ethertype = inner->type;
    if (inner->type != be16(ETHERTYPE_IPV4) && inner->type != be16(ETHERTYPE_IPV6))
        return UP;
    *available = length - VXLAN_ALL;
    return GO_ON;
}

// Where the packet begins that goes on, if the outer one is from a tunnel, or as it was.
INLINE int open_ipv4(const struct settings *settings, const void *data, const void *end, u32 *offset,
                     u32 *available, struct outer *outer)
{
    const struct ipv4 *ip = data + ETHERNET;

    if ((const void *)(ip + 1) > end)
        return UP;
    if (!(settings->flags & HAS_IPV4) || ip->destination != settings->node_ipv4)
        return GO_ON;
    if (ip->protocol != PROTOCOL_IPIP && ip->protocol != PROTOCOL_UDP)
        return UP;
    u32 length = sound_ipv4(ip, end, *available);
    if (!length)
        return UP;
    struct address source = mapped(ip->source);
    outer->peer = peer_of(&source);
    if (!outer->peer)
        return UP;
    outer->tos = ip->tos;
    *available = length - IPV4;
    *offset = ETHERNET + IPV4;
    if (ip->protocol == PROTOCOL_IPIP)
        return GO_ON;
    *offset = ETHERNET + IPV4 + VXLAN_ALL;
    return open_vxlan(settings, settings->vtep_mac, 1, ip + 1, end, available, outer);
}

INLINE int open_ipv6(const struct settings *settings, const void *data, const void *end, u32 *offset,
                     u32 *available, struct outer *outer)
{
    const struct ipv6 *ip = data + ETHERNET;

    if ((const void *)(ip + 1) > end)
        return UP;
    const u32 *own = settings->node_ipv6, *to = ip->destination;
    if (!(settings->flags & HAS_IPV6) || to[0] != own[0] || to[1] != own[1] || to[2] != own[2] ||
        to[3] != own[3])
        return GO_ON;
    u32 length = sound_ipv6(ip, end, *available);
    if (!length || ip->next_header != PROTOCOL_UDP)
        return UP;
    struct address source = of_ipv6(ip->source);
    outer->peer = peer_of(&source);
    if (!outer->peer)
        return UP;
    outer->tos = (u8)(be16(*(const u16 *)ip) >> 4);
    *available = length - IPV6;
    *offset = ETHERNET + IPV6 + VXLAN_ALL;
    return open_vxlan(settings, settings->vtep_mac_ipv6, settings->flags & ZERO_CHECKSUM_IPV6, ip + 1,
                      end, available, outer);
}
