"""Prints the packets of the steering test, a line each: s(tolen) or p(assed), what it is, its bytes.

The node is 10.30.0.1 and fd00::1, its blocks are 192.168.2.0/26 and fd01::/64, its device's address is
02:00:00:00:00:10, and VXLAN is on port 4789.
"""
import struct

from scapy.all import (ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, IPOption, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Raw,
                       fragment, raw)
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded
from scapy.layers.vxlan import VXLAN

NODE, NODE6, PEER, PEER6 = "10.30.0.1", "fd00::1", "10.30.0.2", "fd00::2"


def ether(**fields):
    return Ether(**{"dst": "02:00:00:00:00:10", "src": "02:00:00:00:00:20", **fields})


def ipv4(**fields):
    return IP(**{"src": PEER, "dst": NODE, **fields})


def show(verdict, what, packet):
    data = packet if isinstance(packet, bytes) else raw(packet)
    print(verdict, what.replace(" ", "_"), data.hex())


def patched(packet, offset, value):
    """The packet with bytes of its IP header replaced, checksums left as they were."""
    data = bytearray(raw(packet))
    data[14 + offset:14 + offset + len(value)] = value
    return bytes(data)


inner = IP(src="192.168.9.9", dst="192.168.2.9") / UDP(sport=1, dport=2) / b"payload"
vxlan = UDP(sport=50000, dport=4789) / VXLAN(vni=4096, flags=8) / Ether(dst="66:00:00:00:00:01") / inner
options = [IPOption(b"\x07\x07\x04\x00\x00\x00\x00"), IPOption(b"\x01")]

show("s", "IPIP to the node", ether() / ipv4() / inner)
show("s", "IPIP with IPv4 options", ether() / ipv4(options=options) / inner)
show("s", "IPIP with a wrong total length", patched(ether() / ipv4() / inner, 2, struct.pack("!H", 9000)))
show("s", "IPIP with a wrong checksum", patched(ether() / ipv4() / inner, 10, b"\xde\xad"))
show("s", "IPIP later fragment", ether() / ipv4(proto=4, frag=100) / Raw(b"x" * 64))
show("s", "VXLAN to the node", ether() / ipv4() / vxlan)
show("s", "VXLAN with IPv4 options", ether() / ipv4(options=options) / vxlan)
show("s", "VXLAN over IPv6", ether() / IPv6(src=PEER6, dst=NODE6) / vxlan)
show("s", "TCP into the block", ether() / ipv4(dst="192.168.2.5") / TCP(dport=80))
show("s", "ICMP to the block's last address", ether() / ipv4(dst="192.168.2.63") / ICMP())
show("s", "TCP into the IPv6 block", ether() / IPv6(src=PEER6, dst="fd01::5") / TCP(dport=80))
show("s", "hop-by-hop into the IPv6 block",
     ether() / IPv6(src=PEER6, dst="fd01::5") / IPv6ExtHdrHopByHop() / TCP(dport=80))

for number, part in enumerate(fragment(ipv4(id=7) / UDP(dport=4789) / VXLAN() / Raw(b"v" * 3000), 1000)):
    show("s", f"VXLAN fragment {number}", ether() / part)
for number, part in enumerate(fragment(ipv4(id=8) / UDP(dport=53) / Raw(b"d" * 3000), 1000)):
    show("p", f"DNS fragment {number}", ether() / part)
for number, part in enumerate(fragment(ipv4(id=7) / UDP(dport=53) / Raw(b"r" * 2000), 1000)):
    show("p", f"DNS fragment {number} that reuses the identification", ether() / part)
show("p", "later UDP fragment of nothing known",
     ether() / ipv4(src="10.30.0.9", id=9, proto=17, frag=100) / Raw(b"x" * 64))
# Who sends fragments of VXLAN may send the last one first; what was seen to be something else is not taken.
for number, part in enumerate(reversed(fragment(ipv4(id=10) / UDP(dport=4789) / VXLAN() / Raw(b"v" * 3000), 1000))):
    show("s", f"VXLAN fragment, from the last one, {number}", ether() / part)
for number, part in enumerate(fragment(ipv4(id=11) / UDP(dport=53) / Raw(b"d" * 3000), 1000)):
    show("p", f"DNS fragment {number} from who sends fragments of VXLAN", ether() / part)


def fragments6(number, payload):
    """Three fragments of an IPv6 packet; scapy's fragment6 makes up identifications of its own."""
    data = raw(payload)
    parts = [data[at:at + 1000] for at in range(0, len(data), 1000)]
    for at, part in enumerate(parts):
        header = IPv6ExtHdrFragment(nh=17, id=number, offset=at * 125, m=int(at + 1 < len(parts)))
        yield ether() / IPv6(src=PEER6, dst=NODE6) / header / Raw(part)


udp6 = UDP(sport=50000, dport=4789, chksum=1) / VXLAN() / Raw(b"v" * 2500)
dns6 = UDP(sport=50000, dport=53, chksum=1) / Raw(b"d" * 2500)
show("p", "later fragment over IPv6 of nothing known", list(fragments6(6, udp6))[2])
for number, part in enumerate(fragments6(7, udp6)):
    show("s", f"VXLAN fragment over IPv6 {number}", part)
for number, part in enumerate(reversed(list(fragments6(8, udp6)))):
    show("s", f"VXLAN fragment over IPv6, from the last one, {number}", part)
for number, part in enumerate(fragments6(9, dns6)):
    show("p", f"DNS fragment over IPv6 {number}", part)



def error(offender, kind=3, code=4, quoted=None, **fields):
    """An ICMP error from a router on the way about a packet of the node's."""
    return ether() / ipv4(src="10.30.0.254") / ICMP(type=kind, code=code, nexthopmtu=1400) / raw(offender)[:quoted]


own_ipip = IP(src=NODE, dst=PEER, flags="DF") / inner
own_vxlan = IP(src=NODE, dst=PEER, flags="DF") / vxlan
show("s", "too big about our IPIP", error(own_ipip))
show("s", "too big about our IPIP that quotes 8 bytes", error(own_ipip, quoted=28))
show("s", "too big about our VXLAN", error(own_vxlan))
show("s", "too big about our VXLAN that quotes 8 bytes", error(own_vxlan, quoted=28))
show("s", "host unreachable about our VXLAN", error(own_vxlan, code=1))
show("s", "port unreachable about our VXLAN", error(own_vxlan, code=3))
show("p", "too big about the node's TCP", error(IP(src=NODE, dst=PEER, flags="DF") / TCP(dport=22)))
show("p", "port unreachable about the node's DNS", error(IP(src=NODE, dst=PEER) / UDP(dport=53) / b"x", code=3))
show("p", "too big about another node's IPIP", error(IP(src="10.30.0.3", dst=PEER, flags="DF") / inner))
show("p", "too big about another node's VXLAN", error(IP(src="10.30.0.3", dst=PEER, flags="DF") / vxlan))
show("s", "time exceeded about our IPIP", error(own_ipip, kind=11, code=0))
show("s", "time exceeded about our VXLAN that quotes 8 bytes", error(own_vxlan, kind=11, code=0, quoted=28))
show("p", "reassembly time exceeded about our IPIP", error(own_ipip, kind=11, code=1))
show("p", "time exceeded about the node's TCP", error(IP(src=NODE, dst=PEER) / TCP(dport=22), kind=11, code=0))
show("p", "time exceeded about another node's IPIP", error(IP(src="10.30.0.3", dst=PEER) / inner, kind=11, code=0))
show("p", "redirect about our IPIP", error(own_ipip, kind=5, code=1))
show("p", "too big that quotes less than a header", error(own_ipip, quoted=19))
show("p", "too big about our VXLAN that quotes no ports", error(own_vxlan, quoted=23))
show("p", "a fragment of an error about our IPIP",
     ether() / ipv4(src="10.30.0.254", flags="MF", proto=1) / raw(ICMP(type=3, code=4) / own_ipip))
show("p", "an echo request that carries our IPIP", ether() / ipv4() / ICMP(type=8) / raw(own_ipip))
show("p", "too big to another node", ether() / ipv4(dst="10.30.0.3") / ICMP(type=3, code=4) / raw(own_ipip))

own_vxlan6 = IPv6(src=NODE6, dst=PEER6) / vxlan
cut_vxlan6 = IPv6(src=NODE6, dst=PEER6) / IPv6ExtHdrFragment(nh=17, m=1, id=3) / vxlan


def error6(offender, kind=ICMPv6PacketTooBig(mtu=1400), quoted=None):
    return ether() / IPv6(src="fd00::fe", dst=NODE6) / kind / raw(offender)[:quoted]


show("s", "packet too big about our VXLAN over IPv6", error6(own_vxlan6))
show("s", "packet too big that quotes 8 bytes over IPv6", error6(own_vxlan6, quoted=48))
show("s", "packet too big about a first fragment of ours", error6(cut_vxlan6))
show("s", "address unreachable about our VXLAN over IPv6", error6(own_vxlan6, ICMPv6DestUnreach(code=3)))
show("s", "hop limit exceeded about our VXLAN over IPv6", error6(own_vxlan6, ICMPv6TimeExceeded()))
show("p", "reassembly time exceeded about our VXLAN over IPv6", error6(own_vxlan6, ICMPv6TimeExceeded(code=1)))
show("p", "hop limit exceeded about the node's TCP", error6(IPv6(src=NODE6, dst=PEER6) / TCP(dport=22), ICMPv6TimeExceeded()))
show("p", "packet too big about the node's TCP", error6(IPv6(src=NODE6, dst=PEER6) / TCP(dport=22)))
show("p", "packet too big about another node's VXLAN", error6(IPv6(src="fd00::3", dst=PEER6) / vxlan))
show("p", "packet too big that quotes less than a header", error6(own_vxlan6, quoted=39))
show("p", "packet too big that quotes no ports over IPv6", error6(own_vxlan6, quoted=43))

show("p", "SSH to the node", ether() / ipv4() / TCP(dport=22))
show("p", "BGP to the node", ether() / ipv4() / TCP(dport=179))
show("p", "ICMP to the node", ether() / ipv4() / ICMP())
show("p", "DNS to the node", ether() / ipv4() / UDP(dport=53))
show("p", "VXLAN from, not to, the port", ether() / ipv4() / UDP(sport=4789, dport=50000) / b"x")
show("p", "TCP to the VXLAN port", ether() / ipv4() / TCP(dport=4789))
show("p", "IPIP to another node", ether() / ipv4(dst="10.30.0.3") / inner)
show("p", "VXLAN to another node", ether() / ipv4(dst="10.30.0.3") / vxlan)
show("p", "IPIP to another station", ether(dst="02:00:00:00:00:99") / ipv4() / inner)
show("p", "TCP into the block at another station", ether(dst="02:00:00:00:00:99") / ipv4(dst="192.168.2.5") / TCP())
show("p", "VXLAN by broadcast", ether(dst="ff:ff:ff:ff:ff:ff") / ipv4() / vxlan)
show("p", "TCP behind the block", ether() / ipv4(dst="192.168.2.64") / TCP())
show("p", "TCP behind the IPv6 block", ether() / IPv6(src=PEER6, dst="fd01:0:0:1::5") / TCP())
show("p", "VXLAN over IPv6 to another node", ether() / IPv6(src=PEER6, dst="fd00::3") / vxlan)
show("p", "VXLAN over IPv6 behind a header", ether() / IPv6(src=PEER6, dst=NODE6) / IPv6ExtHdrHopByHop() / vxlan)
show("p", "ping of the node's IPv6 address", ether() / IPv6(src=PEER6, dst=NODE6, nh=58) / b"\x80\0\0\0\0\0\0\0")
show("p", "ARP", ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=NODE))
show("p", "ARP to us", ether() / ARP(pdst=NODE))
show("p", "802.1Q with VXLAN", ether() / Dot1Q(vlan=5) / ipv4() / vxlan)
show("p", "802.1Q into the block", ether() / Dot1Q(vlan=5) / ipv4(dst="192.168.2.5") / TCP())
show("p", "an unknown EtherType", ether(type=0x88b5) / raw(ipv4() / inner))

show("p", "IPv4 header length 16", patched(ether() / ipv4() / inner, 0, b"\x44"))
show("p", "IPv4 header length beyond the frame", patched(ether() / ipv4(proto=4), 0, b"\x4f"))
show("p", "IPv4 version 5", patched(ether() / ipv4() / inner, 0, b"\x55"))
show("p", "IPv6 version 4", patched(ether() / IPv6(src=PEER6, dst="fd01::5") / TCP(), 0, b"\x40"))
show("p", "IPv4 header cut", raw(ether() / ipv4() / inner)[:14 + 19])
show("p", "IPv6 header cut", raw(ether() / IPv6(dst="fd01::5") / inner)[:14 + 39])
show("p", "UDP header cut", raw(ether() / ipv4() / vxlan)[:14 + 20 + 7])
show("p", "UDP header over IPv6 cut", raw(ether() / IPv6(src=PEER6, dst=NODE6) / vxlan)[:14 + 40 + 7])
show("p", "an Ethernet header alone", raw(ether(type=0x0800)))
