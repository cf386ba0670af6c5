#!/usr/bin/python3
"""Writes the golden packets beside this file with scapy (Debian package python3-scapy).

    tests/golden/make.py           write all fixtures
    tests/golden/make.py --check   say which differ from what scapy makes now; status 1 if any does

Fields are read back from the bytes by scapy's dissector, so that each fixture is scapy's opinion
twice: how to build the packet and how to read it. The fixtures partial_* are the kernel's: see
partial.py.
"""

import sys

sys.dont_write_bytecode = True
import fixture

try:
    from scapy.all import (
        ARP, IP, TCP, UDP, ICMP, Dot1Q, Ether, Raw, IPv6, fragment, raw,
        ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS,
        ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig, ICMPv6TimeExceeded,
        IPOption_NOP, IPOption_RR, IPOption_Timestamp, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, VXLAN,
    )
except ImportError:
    sys.exit("scapy is missing: apt-get install python3-scapy")

NODE1, NODE2 = "10.30.0.11", "10.30.0.12"
NODE1_6, NODE2_6 = "fd00:30::11", "fd00:30::12"
POD1, POD2 = "192.168.1.2", "192.168.2.3"
POD1_6, POD2_6 = "fd00:168:1::2", "fd00:168:2::3"
MAC1, MAC2 = "66:3e:ca:a4:db:65", "66:12:34:56:78:9a"
GATEWAY = "ee:ee:ee:ee:ee:ee"
LINK_LOCAL, LINK_LOCAL2 = "fe80::643e:caff:fea4:db65", "fe80::6412:34ff:fe56:789a"

FIXTURES = {}


def add(name, comment, fields=None, **packets):
    """Notes a fixture. `fields` maps a prefix to a header's fields; packets are scapy's or bytes."""
    values = {}
    for prefix, header in (fields or {}).items():
        values |= {f"{prefix}.{key}": value for key, value in header.items()}
    values |= {key: value if isinstance(value, bytes) else raw(value) for key, value in packets.items()}
    FIXTURES[name] = fixture.text(comment, values)


# Fields, as scapy reads them.

def ethernet(frame):
    return {"destination": frame.dst, "source": frame.src, "ethertype": f"0x{frame.type:04x}"}


def vlan(tag):
    return {"priority": tag.prio, "drop_eligible": bool(tag.id), "id": tag.vlan, "ethertype": f"0x{tag.type:04x}"}


def arp(message):
    return {
        "operation": message.op, "sender_mac": message.hwsrc, "sender_ip": message.psrc,
        "target_mac": message.hwdst, "target_ip": message.pdst,
    }


def ipv4(ip):
    return {
        "header_len": ip.ihl * 4, "tos": ip.tos, "total_len": ip.len, "identification": ip.id,
        "dont_fragment": bool(ip.flags.DF), "more_fragments": bool(ip.flags.MF),
        "fragment_offset": ip.frag * 8, "ttl": ip.ttl, "protocol": ip.proto, "source": ip.src,
        "destination": ip.dst,
    }


def ipv6(ip):
    return {
        "traffic_class": ip.tc, "flow_label": ip.fl, "payload_len": ip.plen, "next_header": ip.nh,
        "hop_limit": ip.hlim, "source": ip.src, "destination": ip.dst,
    }


def udp(datagram):
    return {
        "source_port": datagram.sport, "destination_port": datagram.dport, "length": datagram.len,
        "checksum": f"0x{datagram.chksum:04x}",
    }


def icmp(message):
    return {"type": message.type, "code": message.code}


def read(packet):
    """The packet as dissected from its bytes: computed fields filled in."""
    return packet.__class__(raw(packet))


def rebuilt(packet, **changes):
    """The packet with fields of its IP header changed and all of that header computed anew."""
    packet = read(packet)
    for key, value in changes.items():
        setattr(packet, key, value)
    if isinstance(packet, IP):
        del packet.chksum
    return packet


# Link layer.

frame = read(
    Ether(src=MAC1, dst=MAC2) / Dot1Q(prio=5, id=1, vlan=2748) / IP(src=POD1, dst=POD2) / UDP(sport=1, dport=2)
)
add("ethernet_vlan", "Ether / Dot1Q / IP / UDP", {"ethernet": ethernet(frame), "vlan": vlan(frame[Dot1Q])}, packet=frame)

frame = read(Ether(src=MAC1, dst=MAC2) / IPv6(src=POD1_6, dst=POD2_6))
add("ethernet_plain", "Ether / IPv6", {"ethernet": ethernet(frame)}, packet=frame)

request = read(Ether(src=MAC1, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=MAC1, psrc=POD1, hwdst="00:00:00:00:00:00", pdst="169.254.1.1"))
reply = read(Ether(src=GATEWAY, dst=MAC1) / ARP(op=2, hwsrc=GATEWAY, psrc="169.254.1.1", hwdst=MAC1, pdst=POD1))
add(
    "arp", "A workload asks for its gateway, and the proxy's answer",
    {"request": arp(request[ARP]), "reply": arp(reply[ARP])}, request=request, reply=reply,
)

# IPv4.

packet = read(IP(src=POD1, dst=POD2, tos=0xB9, id=0xBEEF, flags="DF", ttl=64) / UDP(sport=4000, dport=53) / b"payload")
add(
    "ipv4_plain", "IP / UDP with odd length, and the same after changes in place",
    {"ipv4": ipv4(packet), "udp": udp(packet[UDP])}, packet=packet,
    ttl_decremented=rebuilt(packet, ttl=63), tos_0x03=rebuilt(packet, tos=3),
    identification_0=rebuilt(packet, id=0), dont_fragment_clear=rebuilt(packet, flags=0),
)

options = [IPOption_NOP(), IPOption_RR(routers=["10.0.0.1", "0.0.0.0"]), IPOption_Timestamp(flg=0, length=8)]
packet = read(IP(src=POD1, dst=POD2, ttl=2, options=options) / TCP(sport=40000, dport=80, flags="S"))
add(
    "ipv4_options", "IP with NOP, record route and timestamp / TCP",
    {"ipv4": ipv4(packet)}, packet=packet, ttl_decremented=rebuilt(packet, ttl=1),
)

# A sum of the header's other words that makes the checksum 0x0000, then one step further.
packet = read(IP(src=POD1, dst=POD2, id=0, ttl=64) / b"x")
packet = rebuilt(packet, id=read(packet).chksum)
add(
    "ipv4_checksum_zero", "An IP header whose checksum is 0x0000",
    {"ipv4": ipv4(read(packet))}, packet=packet, ttl_decremented=rebuilt(packet, ttl=63), tos_0x03=rebuilt(packet, tos=3),
)

pieces = [read(piece) for piece in fragment(IP(src=POD1, dst=POD2, id=77) / UDP(sport=4000, dport=53) / (b"f" * 100), fragsize=64)]
add(
    "ipv4_fragments", "IP / UDP in two fragments",
    {"first": ipv4(pieces[0]), "last": ipv4(pieces[1])}, first=pieces[0], last=pieces[1],
)

# IPv6.

packet = read(IPv6(src=POD1_6, dst=POD2_6, tc=0xB9, fl=0xABCDE, hlim=64) / UDP(sport=4000, dport=53) / b"payload")
add(
    "ipv6_plain", "IPv6 / UDP with odd length, and the same after changes in place",
    {"ipv6": ipv6(packet), "udp": udp(packet[UDP])}, packet=packet,
    hop_limit_decremented=rebuilt(packet, hlim=63), traffic_class_0x47=rebuilt(packet, tc=0x47),
)

packet = read(
    IPv6(src=POD1_6, dst=POD2_6)
    / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)])
    / IPv6ExtHdrRouting(type=0, segleft=1, addresses=[NODE1_6])
    / IPv6ExtHdrFragment(id=0x12345678, offset=0, m=1)
    / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    / TCP(sport=40000, dport=80)
)
upper = {
    "protocol": packet[IPv6ExtHdrDestOpt].nh, "offset": len(raw(packet)) - len(raw(packet[TCP])),
    "fragment_offset": packet[IPv6ExtHdrFragment].offset * 8, "more": bool(packet[IPv6ExtHdrFragment].m),
    "identification": packet[IPv6ExtHdrFragment].id, "segments_left": packet[IPv6ExtHdrRouting].segleft > 0,
}
add("ipv6_extensions", "IPv6 / hop-by-hop / routing / fragment / destination options / TCP", {"ipv6": ipv6(packet), "upper": upper}, packet=packet)

# Tunnels.

inner = Ether(src=MAC1, dst=MAC2) / IP(src=POD1, dst=POD2, ttl=63) / TCP(sport=40000, dport=80, flags="PA") / b"GET / HTTP/1.0\r\n\r\n"


def vxlan(name, comment, outer, outer_fields):
    packet = read(Ether(src=MAC2, dst=MAC1) / outer / inner)
    fields = {
        "ethernet": ethernet(packet), "outer": outer_fields(packet.getlayer(1)), "udp": udp(packet[UDP]),
        "vxlan": {"vni": packet[VXLAN].vni, "flags": f"0x{int(packet[VXLAN].flags):02x}"},
        "inner_ethernet": ethernet(packet[VXLAN].payload), "inner": ipv4(packet[VXLAN].payload[IP]),
    }
    add(name, comment, fields, packet=packet)


vxlan("vxlan_v4", "VXLAN over IPv4, no UDP checksum", IP(src=NODE1, dst=NODE2, flags="DF") / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(vni=4096, flags=8), ipv4)
vxlan("vxlan_v4_checksum", "VXLAN over IPv4 with a UDP checksum", IP(src=NODE1, dst=NODE2, id=9) / UDP(sport=65535, dport=4789) / VXLAN(vni=0xFFFFFF, flags=8), ipv4)
vxlan("vxlan_v6", "VXLAN over IPv6", IPv6(src=NODE1_6, dst=NODE2_6) / UDP(sport=50000, dport=4789) / VXLAN(vni=1, flags=8), ipv6)

packet = read(IP(src=NODE1, dst=NODE2, tos=2, id=1) / inner[IP])
add("ipip", "IP / IP / TCP", {"outer": ipv4(packet), "inner": ipv4(packet.payload)}, packet=packet)

# ICMP.


def header4(**fields):
    return IP(src=NODE1, dst=POD1, id=0, flags="DF", ttl=64, **fields)


request = read(IP(src=POD1, dst=NODE1, tos=0x10, id=0x1234, flags="DF", ttl=61) / ICMP(type=8, id=0xABCD, seq=7) / b"abcdefg")
reply = IP(src=NODE1, dst=POD1, tos=0x10, id=0x1234, flags="DF", ttl=64) / ICMP(type=0, id=0xABCD, seq=7) / b"abcdefg"
echo = icmp(request[ICMP]) | {"identifier": request[ICMP].id, "sequence": request[ICMP].seq}
add("icmp_echo", "An echo request and its reply", {"request": echo}, request=request, reply=reply)

short = IP(src=POD1, dst=POD2, tos=0xB9, id=5, ttl=1, options=[IPOption_RR(routers=["0.0.0.0"])]) / UDP(sport=1, dport=2) / b"short"
long = IP(src=POD1, dst=POD2, id=6, flags="DF") / UDP(sport=1, dport=2) / bytes(i % 251 for i in range(1472))

for name, message, original, tos in [
    ("icmp_net_unreachable", ICMP(type=3, code=0), short, 0xC0 | 0xB8 & 0x1C),
    ("icmp_host_unreachable", ICMP(type=3, code=1), long, 0xC0),
    ("icmp_fragmentation_needed", ICMP(type=3, code=4, nexthopmtu=1430), long, 0xC0),
    ("icmp_time_exceeded", ICMP(type=11, code=0), short, 0xC0 | 0xB8 & 0x1C),
]:
    packet = header4(tos=tos) / message / Raw(raw(original)[: 576 - 28])
    packet = read(packet)
    fields = icmp(packet[ICMP]) | {"mtu": message.nexthopmtu if message.code == 4 else "none"}
    add(name, "An error about a packet that a workload sent", {"ipv4": ipv4(packet), "icmp": fields}, original=original, packet=packet)

# ICMPv6.

request = read(IPv6(src=POD1_6, dst=NODE1_6, tc=4, fl=9, hlim=61) / ICMPv6EchoRequest(id=0xABCD, seq=7, data=b"abcdefg"))
reply = IPv6(src=NODE1_6, dst=POD1_6, tc=4, fl=9, hlim=64) / ICMPv6EchoReply(id=0xABCD, seq=7, data=b"abcdefg")
message = request[ICMPv6EchoRequest]
echo = icmp(message) | {"identifier": message.id, "sequence": message.seq}
add("icmpv6_echo", "An echo request and its reply", {"request": echo}, request=request, reply=reply)

short = IPv6(src=POD1_6, dst=POD2_6, tc=0xB9, hlim=1) / UDP(sport=1, dport=2) / b"short"
long = IPv6(src=POD1_6, dst=POD2_6) / UDP(sport=1, dport=2) / bytes(i % 251 for i in range(1452))

for name, message, original, tc in [
    ("icmpv6_no_route", ICMPv6DestUnreach(code=0), short, 0xB8),
    ("icmpv6_packet_too_big", ICMPv6PacketTooBig(mtu=1430), long, 0),
    ("icmpv6_time_exceeded", ICMPv6TimeExceeded(code=0), short, 0xB8),
]:
    packet = read(IPv6(src=NODE1_6, dst=POD1_6, tc=tc, hlim=64) / message / Raw(raw(original)[: 1280 - 48]))
    fields = icmp(message) | {"mtu": getattr(message, "mtu", "none")}
    add(name, "An error about a packet that a workload sent", {"ipv6": ipv6(packet), "icmpv6": fields}, original=original, packet=packet)

# Neighbour discovery.


def neighbour(packet, option):
    message = packet[ICMPv6ND_NS] if ICMPv6ND_NS in packet else packet[ICMPv6ND_NA]
    fields = icmp(message) | {"source": packet.src, "destination": packet.dst, "target": message.tgt}
    if ICMPv6ND_NA in packet:
        fields |= {"router": bool(message.R), "solicited": bool(message.S), "override": bool(message.O)}
    return fields | {"link_address": packet[option].lladdr if option in packet else "none"}


def solicitation(source, group):
    packet = IPv6(src=source, dst=group, hlim=255) / ICMPv6ND_NS(tgt=LINK_LOCAL2)
    return read(packet / ICMPv6NDOptSrcLLAddr(lladdr=MAC1) if source != "::" else packet)


def advertisement(destination, solicited):
    packet = IPv6(src=LINK_LOCAL2, dst=destination, hlim=255) / ICMPv6ND_NA(tgt=LINK_LOCAL2, R=1, S=solicited, O=0)
    return read(packet / ICMPv6NDOptDstLLAddr(lladdr=GATEWAY))


GROUP = "ff02::1:ff56:789a"
for name, asker, answer in [
    ("nd_neighbour", LINK_LOCAL, advertisement(LINK_LOCAL, 1)),
    ("nd_duplicate_address", "::", advertisement("ff02::1", 0)),
]:
    request = solicitation(asker, GROUP)
    fields = {"solicitation": neighbour(request, ICMPv6NDOptSrcLLAddr), "advertisement": neighbour(answer, ICMPv6NDOptDstLLAddr)}
    add(name, "A neighbour solicitation and a proxy's advertisement", fields, solicitation=request, advertisement=answer)


def main():
    if sys.argv[1:] == ["--check"]:
        stale = [n for n, t in FIXTURES.items() if not fixture.path(n).exists() or fixture.path(n).read_text() != t]
        if stale:
            sys.exit(f"differ from what scapy makes now: {', '.join(stale)}; run tests/golden/make.py")
        return
    for name, text in FIXTURES.items():
        fixture.path(name).write_text(text)


main()
