"""traceroute.py udp|icmp ADDRESS: prints who answers at each TTL, a line each, up to the address."""
import socket
import struct
import sys

SOL_IP, IP_TTL, IP_RECVERR, MSG_ERRQUEUE = 0, 2, 11, 0x2000
kind, target = sys.argv[1:3]


def error_sender(sock):
    """Who sent the ICMP error that waits on a socket's error queue."""
    _, ancillary, _, _ = sock.recvmsg(512, 512, MSG_ERRQUEUE)
    for level, what, data in ancillary:
        if (level, what) == (SOL_IP, IP_RECVERR):
            # struct sock_extended_err, then the offender's sockaddr_in.
            return socket.inet_ntoa(data[16 + 4:16 + 8])
    return "?"


def hop(ttl):
    if kind == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        message, address = b"x" * 32, (target, 33433 + ttl)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        message, address = struct.pack("!BBHHH", 8, 0, 0, 0, ttl) + b"x" * 24, (target, 0)
    sock.setsockopt(SOL_IP, IP_TTL, ttl)
    sock.setsockopt(SOL_IP, IP_RECVERR, 1)
    sock.settimeout(3)
    sock.connect(address)
    sock.send(message)
    try:
        sock.recv(512)
        return target
    except OSError as error:
        return "*" if isinstance(error, TimeoutError) else error_sender(sock)


for ttl in range(1, 9):
    answer = hop(ttl)
    print(answer)
    if answer == target:
        break
