"""Sends node1 ICMP errors about tunnel packets that it cannot have sent, and prints how many.

With an MTU as its argument: one about a packet that it can have sent, which names that MTU.
"""
import sys

from scapy.all import ICMP, IP, UDP, Ether, conf, get_if_hwaddr, getmacbyip, raw, sendp

NODE, FAR, ROUTER = "10.30.0.11", "10.30.1.12", "10.30.0.254"
conf.verb = 0

inner = IP(src="192.168.1.10", dst="192.168.2.10", flags="DF") / UDP(sport=1, dport=2) / (b"x" * 1400)
own = dict(src=NODE, dst=FAR, flags="DF", id=0)
offenders = [
    (1400, IP(**{**own, "dst": "10.30.1.99"}, proto=4) / inner),        # no known node
    (1400, IP(**{**own, "flags": 0, "id": 7}, proto=4) / inner),        # DF clear
    (1400, IP(**{**own, "id": 7}, proto=4) / inner),                    # an identification beside DF
    (1600, IP(**own, proto=4) / inner),                                 # it would have fitted
    (60, IP(**own, proto=4) / inner),                                   # no link is so narrow
    (1400, IP(**own) / UDP(sport=53, dport=4789) / (b"x" * 1400)),      # no source port of ours
]
if len(sys.argv) > 1:
    offenders = [(int(sys.argv[1]), IP(**own, proto=4) / inner)]
ether = Ether(src=get_if_hwaddr("node"), dst=getmacbyip(NODE))
for mtu, offender in offenders:
    error = IP(src=ROUTER, dst=NODE) / ICMP(type=3, code=4, nexthopmtu=mtu) / raw(offender)[:128]
    sendp(ether / error, iface="node")
print(len(offenders))
