// The fast path: packets that need nothing but a header more or less go from port to port here, as
// src/forward would have them go. It is shown what the steering programs (steer.bpf.c) steal.
//
//   fast_path   1 parse → 2 decap → 4 lookup → 5 TTL → 6 encap, the stages of src/forward, then a redirect
//
// Whatever is not plainly to be sent goes up, unchanged, to the socket of the queue that it arrived on:
// what is dropped, answered, cut into fragments or waits for a neighbour is the workers' to judge, and
// so is what is merely rare (IPv4 options, IPv6 extension headers, fragments, outer UDP checksums). The
// program decides nothing that the maps do not say, and userspace is their one writer. No packet is
// changed before it is certain that it leaves from here.
//
// What must change as one is written into an unused slot first and then pointed to by one store: see
// `gate` and `next_hops`.

#include "kernel.bpf.h"

enum {
    PROTOCOL_TCP = 6,
    PROTOCOL_DCCP = 33,
    PROTOCOL_ICMPV6 = 58,
    PROTOCOL_SCTP = 132,
    PROTOCOL_UDP_LITE = 136,
    IPV6_HOP_BY_HOP = 0,
    IPV6_ROUTING = 43,
    IPV6_FRAGMENT = 44,
    IPV6_DESTINATION_OPTIONS = 60,
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

struct vxlan {
    u8 flags;
    u8 reserved[3];
    u8 vni[3];
    u8 reserved_too;
};

// What belongs to the node as a whole. Addresses, ports and the VNI are in network byte order.
struct settings {
    u32 node_ipv4;
    u32 node_ipv6[4];
    u32 flags;
    u16 vxlan_port;
    u16 vtep_mac[3];
    u16 vtep_mac_ipv6[3];
    u8 vni[3];
    u8 reverse_path;
    u16 identification_step; // 0: packets that may be fragmented go up
};
enum {
    HAS_IPV4 = 1,
    HAS_IPV6 = 2,
    ZERO_CHECKSUM_IPV6 = 4,
    STRICT_RESERVED_BITS = 8,
};
enum { REVERSE_PATH_OFF = 0, REVERSE_PATH_LOOSE = 1, REVERSE_PATH_STRICT = 2 };

struct port {
    u32 flags;
    u16 mac[3];
    u16 unused;
};
enum {
    PORT_IN = 1,         // packets that arrive may be handled here
    PORT_OUT = 2,        // packets may be redirected to it
    PORT_CAPTURED = 4,   // somebody watches: everything goes up
    PORT_WORKLOAD = 8,   // else an uplink
    PORT_PARTIAL = 16,   // senders may leave checksums unfinished
};

// As `Egress` of src/forward.
struct adjacency {
    u16 port;
    u16 mtu;
    u8 encapsulation;
    u8 flags;
    u8 ttl;
    u8 dscp;
    u32 checksum_base; // host order
    u32 unused;
    u8 header[88];
};
enum { INHERIT_TTL = 1, INHERIT_DSCP = 2 };
enum { ENCAP_NONE = 0, ENCAP_IPIP = 1, ENCAP_VXLAN = 2, ENCAP_VXLAN_IPV6 = 3 };

enum {
    ETHERNET = sizeof(struct ethernet),
    IPV4 = sizeof(struct ipv4),
    IPV6 = sizeof(struct ipv6),
    VXLAN_ALL = sizeof(struct udp) + sizeof(struct vxlan) + ETHERNET,
};

// An address of either family, IPv4 as ::ffff:a.b.c.d.
struct address {
    u32 words[4];
};

// Which address a workload may send from by which port.
struct source {
    u32 port;
    struct address address;
};

struct ipv4_prefix {
    u32 length;
    u32 address;
};

struct ipv6_prefix {
    u32 length;
    struct address address;
};

struct counters {
    u64 rx_packets;
    u64 rx_bytes;
    u64 tx_packets;
    u64 tx_bytes;
    u64 lost; // received, and refused by the redirect
};

enum { PORTS = 1024, QUEUES = 64, NEXT_HOPS = 65536, ADJACENCIES = 16384, ROUTES = 1 << 21 };

// The slot of `settings` that is in force in the lower half; 0 switches the fast path off. So does
// anything in the upper half: an operator's wish, which other settings leave as it is.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
} gate SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct settings);
    __uint(max_entries, 3);
} settings SEC(".maps");

// The port's number of an interface.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, PORTS);
} interfaces SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct port);
    __uint(max_entries, PORTS);
    __uint(map_flags, BPF_F_MMAPABLE);
} ports SEC(".maps");

// The sockets of a port's queues, QUEUES places a port.
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, PORTS * QUEUES);
} sockets SEC(".maps");

// The device of a port, as a target: an interface and no program.
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, PORTS);
} targets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct ipv4_prefix);
    __type(value, u32);
    __uint(max_entries, ROUTES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} routes_ipv4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct ipv6_prefix);
    __type(value, u32);
    __uint(max_entries, ROUTES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} routes_ipv6 SEC(".maps");

// By next hop: the slot of its adjacency in the lower half, 0 if packets to it go up; in the upper half
// where it leads, for the reverse path: LEADS_NOWHERE, LEADS_ELSEWHERE, or a peer.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, NEXT_HOPS);
    __uint(map_flags, BPF_F_MMAPABLE);
} next_hops SEC(".maps");
enum { LEADS_NOWHERE = 0, LEADS_ELSEWHERE = 1 };

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct adjacency);
    __uint(max_entries, ADJACENCIES);
} adjacencies SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct source);
    __type(value, u8);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} sources SEC(".maps");

// Known nodes by address; the value is as in `next_hops`.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct address);
    __type(value, u32);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} peers SEC(".maps");

// Addresses of this node and its workloads: never the source of what comes in.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct address);
    __type(value, u8);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} local_addresses SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, u32);
    __type(value, struct counters);
    __uint(max_entries, PORTS);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, 1);
} identification SEC(".maps");

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

// Multicast, loopback, unspecified.
INLINE int is_martian_ipv6(const u32 *a)
{
    u32 last = a[3] & ~(u32)__builtin_bswap32(1);
    return (u8)a[0] == 0xff || (a[0] | a[1] | a[2] | last) == 0;
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
        if (port->flags & PORT_WORKLOAD && words[1] == settings->vxlan_port)
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
        if (p->protocol == PROTOCOL_ICMP &&
            (header + 1 > end || *(const u8 *)header == ICMP_DESTINATION_UNREACHABLE))
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
    // Neighbour discovery is the router's to answer.
    if (p->protocol == PROTOCOL_ICMPV6) {
        if (header + 1 > end)
            return UP;
        u8 type = *(const u8 *)header;
        if (type >= ICMPV6_ROUTER_SOLICITATION && type <= ICMPV6_REDIRECT)
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

INLINE const u32 *route_ipv4(u32 address)
{
    struct ipv4_prefix key = {32, address};
    return bpf_map_lookup_elem(&routes_ipv4, &key);
}

INLINE const u32 *route_ipv6(const struct address *address)
{
    struct ipv6_prefix key = {128, *address};
    return bpf_map_lookup_elem(&routes_ipv6, &key);
}

// Whether a known node may send from this inner source, as src/forward/reverse_path.rs judges it; a
// node's own addresses are left to that.
INLINE int reverse_path_is_right(const struct settings *settings, const u32 *route, u32 peer)
{
    if (settings->reverse_path == REVERSE_PATH_OFF)
        return 1;
    if (!route)
        return 0;
    u32 index = *route;
    const u64 *next_hop = bpf_map_lookup_elem(&next_hops, &index);
    if (!next_hop)
        return 0;
    u32 leads_to = (u32)(*next_hop >> 32);
    if (settings->reverse_path == REVERSE_PATH_STRICT)
        return leads_to == peer;
    return leads_to != LEADS_NOWHERE;
}

// The congestion mark that the inner packet goes on with (RFC 6040 figure 4); UP if it is to be dropped.
INLINE int mark(u8 outer_tos, struct packet *p)
{
    u8 inner = p->tos & ECN_MASK, outer = outer_tos & ECN_MASK, ecn = inner;

    if (inner == ECN_NOT_ECT) {
        if (outer == ECN_CE)
            return UP;
    } else if (outer == ECN_CE) {
        ecn = ECN_CE;
    } else if (inner == ECN_ECT_0 && outer == ECN_ECT_1) {
        ecn = ECN_ECT_1;
    }
    u8 tos = (p->tos & ~ECN_MASK) | ecn;
    if (tos != p->tos && !p->is_ipv6)
        p->checksum = updated(p->checksum, 0x4500 | p->tos, 0x4500 | tos);
    p->tos = tos;
    return GO_ON;
}

// Who may send from this inner source, and the next hop that the destination's route leads to.
INLINE int judge_and_route(const struct settings *settings, u32 ingress, const struct port *port,
                           const struct outer *outer, const struct address *source,
                           const struct address *destination, struct packet *p)
{
    if (port->flags & PORT_WORKLOAD) {
        struct source own = {ingress, *source};
        if (!bpf_map_lookup_elem(&sources, &own))
            return UP;
    } else if (outer->peer) {
        if (bpf_map_lookup_elem(&local_addresses, source))
            return UP;
        const u32 *back = 0;
        if (settings->reverse_path != REVERSE_PATH_OFF)
            back = p->is_ipv6 ? route_ipv6(source) : route_ipv4(source->words[3]);
        if (!reverse_path_is_right(settings, back, outer->peer) || !mark(outer->tos, p))
            return UP;
    }
    const u32 *route = p->is_ipv6 ? route_ipv6(destination) : route_ipv4(destination->words[3]);
    if (!route)
        return UP;
    p->next_hop = *route;
    return GO_ON;
}

INLINE u32 header_length(u8 encapsulation)
{
    switch (encapsulation) {
    case ENCAP_NONE:
        return ETHERNET;
    case ENCAP_IPIP:
        return ETHERNET + IPV4;
    case ENCAP_VXLAN:
        return ETHERNET + IPV4 + VXLAN_ALL;
    default:
        return ETHERNET + IPV6 + VXLAN_ALL;
    }
}

// The next outer identification of this CPU's; 0 for what may not be fragmented.
INLINE u16 next_identification(const struct settings *settings, const struct packet *p)
{
    u32 first = 0;
    u32 *last = bpf_map_lookup_elem(&identification, &first);

    if (p->dont_fragment || !last)
        return 0;
    *last += settings->identification_step;
    return (u16)*last;
}

// One hop less, and the mark, in the packet's own header.
INLINE void patch_inner(const struct packet *p, void *header)
{
    if (p->is_ipv6) {
        u8 *bytes = header;
        bytes[0] = (bytes[0] & 0xf0) | p->tos >> 4;
        bytes[1] = (u8)(p->tos << 4) | (bytes[1] & 0x0f);
        bytes[7] = p->ttl - 1;
        return;
    }
    struct ipv4 *ip = header;
    u16 before = p->ttl << 8 | p->protocol, after = (p->ttl - 1) << 8 | p->protocol;
    ip->tos = p->tos;
    ip->ttl = p->ttl - 1;
    ip->checksum = be16(updated(p->checksum, before, after));
}

INLINE void patch_outer_ipv4(const struct settings *settings, const struct adjacency *to,
                             const struct packet *p, u8 tos, u8 ttl, struct ipv4 *ip, u32 header)
{
    u16 total = header - ETHERNET + p->length;
    u16 id = next_identification(settings, p);
    u16 fragment = p->dont_fragment ? IPV4_DONT_FRAGMENT : 0;
    u32 sum = to->checksum_base + tos + total + id + fragment + ((u32)ttl << 8);

    ip->tos = tos;
    ip->total_length = be16(total);
    ip->identification = be16(id);
    ip->fragment = be16(fragment);
    ip->ttl = ttl;
    ip->checksum = be16((u16)~folded(sum));
}

INLINE void patch_udp(const struct packet *p, struct udp *udp)
{
    udp->source = be16(vxlan_source_port(p->hash));
    udp->length = be16((u16)(VXLAN_ALL + p->length));
}

// Writes the adjacency's header before the packet, whose frame has room for it; as encap.rs.
INLINE int write_header(const struct settings *settings, const struct adjacency *to,
                        const struct packet *p, void *data, const void *end)
{
    u16 type = p->is_ipv6 ? be16(ETHERTYPE_IPV6) : be16(ETHERTYPE_IPV4);
    u8 dscp = to->flags & INHERIT_DSCP ? p->tos >> 2 : to->dscp;
    u8 tos = dscp << 2 | (p->tos & ECN_MASK);
    u8 ttl = to->flags & INHERIT_TTL ? p->ttl - 1 : to->ttl;

    switch (to->encapsulation) {
    case ENCAP_NONE:
        if (data + ETHERNET + IPV4 > end)
            return UP;
        __builtin_memcpy(data, to->header, ETHERNET);
        ((struct ethernet *)data)->type = type;
        if (p->is_ipv6 && data + ETHERNET + IPV6 > end)
            return UP;
        patch_inner(p, data + ETHERNET);
        return GO_ON;
    case ENCAP_IPIP:
        if (data + ETHERNET + IPV4 + IPV4 > end)
            return UP;
        __builtin_memcpy(data, to->header, ETHERNET + IPV4);
        patch_outer_ipv4(settings, to, p, tos, ttl, data + ETHERNET, ETHERNET + IPV4);
        patch_inner(p, data + ETHERNET + IPV4);
        return GO_ON;
    case ENCAP_VXLAN:
        if (data + ETHERNET + IPV4 + VXLAN_ALL + IPV4 > end)
            return UP;
        __builtin_memcpy(data, to->header, ETHERNET + IPV4 + VXLAN_ALL);
        patch_outer_ipv4(settings, to, p, tos, ttl, data + ETHERNET, ETHERNET + IPV4 + VXLAN_ALL);
        patch_udp(p, data + ETHERNET + IPV4);
        ((struct ethernet *)(data + ETHERNET + IPV4 + VXLAN_ALL - ETHERNET))->type = type;
        patch_inner(p, data + ETHERNET + IPV4 + VXLAN_ALL);
        return GO_ON;
    case ENCAP_VXLAN_IPV6:
        if (data + ETHERNET + IPV6 + VXLAN_ALL + IPV4 > end)
            return UP;
        __builtin_memcpy(data, to->header, ETHERNET + IPV6 + VXLAN_ALL);
        struct ipv6 *ip = data + ETHERNET;
        ip->version_class_label = __builtin_bswap32(6u << 28 | (u32)tos << 20 | flow_label(p->hash));
        ip->payload_length = be16((u16)(VXLAN_ALL + p->length));
        ip->hop_limit = ttl;
        patch_udp(p, data + ETHERNET + IPV6);
        ((struct ethernet *)(data + ETHERNET + IPV6 + VXLAN_ALL - ETHERNET))->type = type;
        patch_inner(p, data + ETHERNET + IPV6 + VXLAN_ALL);
        return GO_ON;
    }
    return UP;
}

INLINE void count(u32 ingress, u64 received, u32 egress, u64 sent, int redirected)
{
    struct counters *in = bpf_map_lookup_elem(&counters, &ingress);
    struct counters *out = bpf_map_lookup_elem(&counters, &egress);

    if (in) {
        in->rx_packets++;
        in->rx_bytes += received;
        if (!redirected)
            in->lost++;
    }
    if (out && redirected) {
        out->tx_packets++;
        out->tx_bytes += sent;
    }
}

// From here on the packet is changed, and does not go up any more.
INLINE int send(struct xdp_md *frame, const struct settings *settings, u32 ingress, u64 received,
                const struct adjacency *to, const struct packet *p)
{
    u32 egress = to->port;
    u32 header = header_length(to->encapsulation);
    const void *data = (void *)(unsigned long)frame->data;
    const void *end = (void *)(unsigned long)frame->data_end;
    int action = XDP_DROP;

    if (write_header(settings, to, p, (void *)data, end))
        action = bpf_redirect_map(&targets, egress, XDP_DROP);
    count(ingress, received, egress, header + p->length, action == XDP_REDIRECT);
    return action;
}

// Whether the frame now holds the packet behind room for the header. What cannot be done leaves the
// packet as it was, but for padding.
INLINE int make_room(struct xdp_md *frame, const struct adjacency *to, const struct packet *p, u32 present)
{
    u32 wanted = p->offset + p->length;

    if (present > wanted && bpf_xdp_adjust_tail(frame, (int)wanted - (int)present))
        return UP;
    int delta = (int)p->offset - (int)header_length(to->encapsulation);
    if (delta && bpf_xdp_adjust_head(frame, delta))
        return UP;
    return GO_ON;
}

// The adjacency that the packet leaves by, if it may.
INLINE const struct adjacency *way_out(const struct settings *settings, u32 ingress,
                                       const struct port *port, const struct packet *p)
{
    u32 index = p->next_hop;
    const u64 *next_hop = bpf_map_lookup_elem(&next_hops, &index);
    if (!next_hop)
        return 0;
    u32 slot = (u32)*next_hop;
    if (!slot)
        return 0;
    const struct adjacency *to = bpf_map_lookup_elem(&adjacencies, &slot);
    if (!to)
        return 0;
    u32 egress = to->port;
    const struct port *out = bpf_map_lookup_elem(&ports, &egress);
    if (!out || (out->flags & (PORT_OUT | PORT_CAPTURED)) != PORT_OUT)
        return 0;
    if (egress == ingress && port->flags & PORT_WORKLOAD)
        return 0;
    if (p->ttl <= 1 || p->length > to->mtu)
        return 0;
    if (to->encapsulation == ENCAP_IPIP && p->is_ipv6)
        return 0;
    if (to->encapsulation != ENCAP_NONE && !p->dont_fragment && !settings->identification_step)
        return 0;
    return bpf_map_lookup_elem(&targets, &egress) ? to : 0;
}

// Reads the frame whole; GO_ON if `p` is what goes on and has a next hop.
INLINE int read(const struct settings *settings, u32 ingress, const struct port *port, const void *data,
                const void *end, struct packet *p)
{
    const struct ethernet *ethernet = data;
    const u16 gateway[3] = {0xeeee, 0xeeee, 0xeeee};
    struct outer outer = {0};
    struct address source, destination;
    u32 offset = ETHERNET;

    if ((const void *)(ethernet + 1) > end)
        return UP;
    if (!same_mac(ethernet->destination, port->mac) &&
        !(port->flags & PORT_WORKLOAD && same_mac(ethernet->destination, gateway)))
        return UP;
    u32 available = (u32)(end - data) - ETHERNET;
    u16 type = ethernet->type;
    if (!(port->flags & PORT_WORKLOAD)) {
        if (type == be16(ETHERTYPE_IPV4) && !open_ipv4(settings, data, end, &offset, &available, &outer))
            return UP;
        if (type == be16(ETHERTYPE_IPV6) && !open_ipv6(settings, data, end, &offset, &available, &outer))
            return UP;
        if (outer.peer)
            type = outer.ethertype ? outer.ethertype : be16(ETHERTYPE_IPV4);
    }
    const void *start = data + offset;
    p->offset = offset;
    if (type == be16(ETHERTYPE_IPV4)) {
        if (!read_ipv4(port, settings, start, end, available, p))
            return UP;
        const struct ipv4 *ip = start;
        source = mapped(ip->source);
        destination = mapped(ip->destination);
    } else if (type == be16(ETHERTYPE_IPV6)) {
        if (!read_ipv6(port, settings, start, end, available, p))
            return UP;
        const struct ipv6 *ip = start;
        source = of_ipv6(ip->source);
        destination = of_ipv6(ip->destination);
    } else {
        return UP;
    }
    return judge_and_route(settings, ingress, port, &outer, &source, &destination, p);
}

// What comes of a frame that arrived by a port: an XDP action, or UP.
INLINE int forward(struct xdp_md *frame, u32 ingress, const struct port *port)
{
    const void *data = (void *)(unsigned long)frame->data;
    const void *end = (void *)(unsigned long)frame->data_end;
    u32 first = 0;
    struct packet p = {0};

    const u64 *in_force = bpf_map_lookup_elem(&gate, &first);
    if (!in_force || (port->flags & (PORT_IN | PORT_CAPTURED)) != PORT_IN)
        return UP;
    u64 switched = *in_force;
    u32 slot = (u32)switched;
    if (!slot || switched >> 32)
        return UP;
    const struct settings *settings_now = bpf_map_lookup_elem(&settings, &slot);
    if (!settings_now || !read(settings_now, ingress, port, data, end, &p))
        return UP;
    const struct adjacency *to = way_out(settings_now, ingress, port, &p);
    if (!to)
        return UP;
    u32 received = (u32)(end - data);
    if (!make_room(frame, to, &p, received))
        return UP;
    return send(frame, settings_now, ingress, received, to, &p);
}

SEC("xdp")
int fast_path(struct xdp_md *frame)
{
    u32 interface = frame->ingress_ifindex;
    const u32 *number = bpf_map_lookup_elem(&interfaces, &interface);
    if (!number)
        return XDP_PASS;
    u32 ingress = *number;
    const struct port *port = bpf_map_lookup_elem(&ports, &ingress);
    if (!port)
        return XDP_PASS;
    int action = forward(frame, ingress, port);
    if (action != UP)
        return action;
    u32 queue = frame->rx_queue_index;
    if (queue >= QUEUES)
        return XDP_PASS;
    return bpf_redirect_map(&sockets, ingress * QUEUES + queue, XDP_PASS);
}

SEC("license") const char _license[] = "Apache-2.0";
