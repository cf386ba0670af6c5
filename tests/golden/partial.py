#!/usr/bin/python3
"""Writes the fixtures partial_*: what the kernel leaves in TCP and UDP checksums on a veth device.

As root, with iproute2, ethtool and scapy:

    tests/golden/partial.py

     namespace golden-a-PID                namespace golden-b-PID
       veth0 192.0.2.1/24  ───────────────  veth0 192.0.2.2/24
             2001:db8::1/64                       2001:db8::2/64, a packet socket that looks on

Each fixture has the packet as the far end sees it (`partial`), taken only if the kernel says that its
checksum is not ready (TP_STATUS_CSUMNOTREADY), and the same with the checksum that scapy computes
(`complete`). Sequence numbers and ports are new with each run.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
import fixture
from scapy.all import IP, TCP, UDP, IPv6, raw

A, B = f"golden-a-{os.getpid()}", f"golden-b-{os.getpid()}"
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY = 263, 8, 8
CLONE_NEWNET = 0x40000000


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def up():
    for name in (A, B):
        run("ip", "netns", "add", name)
    run("ip", "-n", A, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", B)
    for name, host in ((A, 1), (B, 2)):
        run("ip", "-n", name, "address", "add", f"192.0.2.{host}/24", "dev", "veth0")
        run("ip", "-n", name, "address", "add", f"2001:db8::{host}/64", "dev", "veth0", "nodad")
        run("ip", "-n", name, "link", "set", "veth0", "up")
    # Without TSO the kernel itself cuts TCP's super-packets into segments.
    run("ip", "netns", "exec", A, "ethtool", "-K", "veth0", "tso", "off")


def down():
    for name in (A, B):
        subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def enter(name):
    with open(f"/run/netns/{name}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            sys.exit(f"cannot enter namespace {name}: {os.strerror(ctypes.get_errno())}")


def sockets(name, *arguments):
    """Sockets made in the namespace; each stays there, whatever this thread enters next."""
    enter(name)
    return [socket.socket(*argument) for argument in arguments]


def partial_packet(watch, wanted):
    """The next packet for which `wanted` holds and whose checksum the kernel calls unfinished."""
    while True:
        frame, ancillary, _, _ = watch.recvmsg(65535, 256)
        status = next(struct.unpack("=I", data[:4])[0] for _, kind, data in ancillary if kind == PACKET_AUXDATA)
        kind = {0x0800: IP, 0x86DD: IPv6}.get(int.from_bytes(frame[12:14], "big"))
        if kind and status & TP_STATUS_CSUMNOTREADY:
            packet = kind(frame[14:])
            if wanted(packet):
                return packet


def write(name, comment, packet):
    complete = packet.copy()
    layer = complete[TCP] if TCP in complete else complete[UDP]
    del layer.chksum
    values = {"partial": raw(packet), "complete": raw(complete)}
    fixture.path(name).write_text(fixture.text(comment, values))


def serve(listener):
    connection, _ = listener.accept()
    while connection.recv(65536):
        pass


def main():
    inet, inet6, stream, datagram = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
    watch, listener = sockets(B, (socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)), (inet6, stream))
    watch.bind(("veth0", 0))
    watch.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    watch.settimeout(5)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 8080))
    listener.listen()
    udp4, udp6, tcp4, tcp6 = sockets(A, (inet, datagram), (inet6, datagram), (inet, stream), (inet6, stream))

    for client, far, name in ((udp4, "192.0.2.2", "udp4"), (udp6, "2001:db8::2", "udp6")):
        client.sendto(b"an odd datagram", (far, 4000))
        packet = partial_packet(watch, lambda p: UDP in p)
        write(f"partial_{name}", "A UDP datagram as the kernel puts it on a veth device", packet)

    for client, far, name in ((tcp4, "192.0.2.2", "tcp4"), (tcp6, "2001:db8::2", "tcp6")):
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        client.settimeout(5)
        client.connect((far, 8080))
        packet = partial_packet(watch, lambda p: TCP in p and p[TCP].flags == "S")
        write(f"partial_{name}", "A TCP SYN as the kernel puts it on a veth device", packet)
        client.sendall(bytes(4003))
        packet = partial_packet(watch, lambda p: TCP in p and 0 < len(p[TCP].payload) < 1400)
        write(f"partial_{name}_segment", "The last TCP segment of a super-packet that the kernel cut", packet)
        client.close()


if os.geteuid() != 0:
    sys.exit("needs root, to make network namespaces")
try:
    up()
    main()
finally:
    down()
