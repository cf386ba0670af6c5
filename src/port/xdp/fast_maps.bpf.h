// What the fast path (fast.bpf.c) is told and what it counts; fast_path.rs has the same structures.
//
// What must change as one is written into an unused slot first and then pointed to by one store: see
// `gate` and `next_hops`.

// What belongs to the node as a whole. Addresses, ports and the VNI are in network byte order.
struct settings {
    u32 node_ipv4;
    u32 node_ipv6[4];
    u32 flags;
    u16 vxlan_port;
    u16 fenced_ports[10]; // of VXLAN, the first ones; then zeros
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

enum { PORTS = 1024, QUEUES = 64, NEXT_HOPS = 65536, ADJACENCIES = 16384, HOSTS = 65536, ROUTES = 1 << 21 };
enum { INTERFACES = 16384, HOST_BITS = 65536 };

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

// The port's number of an interface, plus one; 0 is none. Indices beyond are in a map that costs more.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, INTERFACES);
} interfaces SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, PORTS);
} interfaces_beyond SEC(".maps");

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

// Next hops of single addresses, no less specific than any prefix. Apart from those, where a trie of
// many of them would be deep.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, u32);
    __type(value, u32);
    __uint(max_entries, HOSTS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} hosts_ipv4 SEC(".maps");

// A bit for each value of an IPv4 address's last 16 bits: without it no such address was ever among the
// single ones, and most packets go to blocks.
struct host_bits {
    u64 words[HOST_BITS / 64];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, u32);
    __type(value, struct host_bits);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
} host_bits_ipv4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct address);
    __type(value, u32);
    __uint(max_entries, HOSTS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} hosts_ipv6 SEC(".maps");

// Next hops of prefixes, and of the addresses for which there was no room above.
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
