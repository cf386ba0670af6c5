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

#include "kernel.bpf.h"
#include "fast_parse.bpf.h"

INLINE const u32 *host_ipv4(u32 address)
{
    u32 first = 0, bit = address >> 16; // the last 16 bits of what is in network order
    const struct host_bits *bits = bpf_map_lookup_elem(&host_bits_ipv4, &first);

    if (!bits || !(bits->words[bit / 64] >> bit % 64 & 1))
        return 0;
    return bpf_map_lookup_elem(&hosts_ipv4, &address);
}

INLINE const u32 *route_ipv4(u32 address)
{
    struct ipv4_prefix key = {32, address};
    const u32 *host = host_ipv4(address);
    return host ? host : bpf_map_lookup_elem(&routes_ipv4, &key);
}

INLINE const u32 *route_ipv6(const struct address *address)
{
    struct ipv6_prefix key = {128, *address};
    const u32 *host = bpf_map_lookup_elem(&hosts_ipv6, address);
    return host ? host : bpf_map_lookup_elem(&routes_ipv6, &key);
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
    } else {
        if (bpf_map_lookup_elem(&local_addresses, source))
            return UP;
        if (outer->peer) {
            const u32 *back = 0;
            if (settings->reverse_path != REVERSE_PATH_OFF)
                back = p->is_ipv6 ? route_ipv6(source) : route_ipv4(source->words[3]);
            if (!reverse_path_is_right(settings, back, outer->peer) || !mark(outer->tos, p))
                return UP;
        }
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

// The port of an interface, plus one; 0 if it is none.
INLINE u32 port_of(u32 interface)
{
    if (interface >= INTERFACES) {
        const u32 *number = bpf_map_lookup_elem(&interfaces_beyond, &interface);
        return number ? *number : 0;
    }
    // Two calls, or the verifier does not know which map it is, and does not look into the array in place.
    asm volatile("" ::: "memory");
    const u32 *number = bpf_map_lookup_elem(&interfaces, &interface);
    return number ? *number : 0;
}

SEC("xdp")
int fast_path(struct xdp_md *frame)
{
    u32 ingress = port_of(frame->ingress_ifindex);
    if (!ingress--)
        return XDP_PASS;
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
