"""Runs a command line in a guest: vm-exec.py AGENT-SOCKET COMMAND SECONDS."""

import base64
import fcntl
import os
import socket
import sys
import time

AGENT, COMMAND, SECONDS = sys.argv[1], sys.argv[2], float(sys.argv[3])


def main():
    # One command at a time: answers would be mixed up.
    with open(AGENT + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + SECONDS
        agent = socket.socket(socket.AF_UNIX)
        agent.settimeout(SECONDS)
        try:
            agent.connect(AGENT)
        except OSError as error:
            sys.exit(f"the guest cannot be reached: {error}")
        ask = f"{os.getpid()}-{time.monotonic_ns()}"
        encoded = base64.b64encode(COMMAND.encode()).decode()
        agent.sendall(f"{ask} {encoded}\n".encode())
        return answer(agent, ask, deadline)


def answer(agent, ask, deadline):
    """Skips what is left of commands that nobody waited for."""
    text = b""
    while True:
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            words = line.split(b" ", 2)
            if words[0] == ask.encode():
                output = base64.b64decode(words[2]) if len(words) > 2 else b""
                sys.stdout.buffer.write(output)
                return int(words[1])
        agent.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = agent.recv(65536)
        except TimeoutError:
            sys.exit(f"the guest did not answer within {SECONDS:g} s")
        if not more:
            sys.exit("the guest has ended")
        text += more


sys.exit(main())
