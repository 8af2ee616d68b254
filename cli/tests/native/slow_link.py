"""A link of a given delay between two network namespaces, which logs what passes: slow_link.py DELAY_MS CLIENT_PID SERVER_PID

The client's end is 10.99.0.1, the server's 10.99.0.2. Prints "ready", then, for each TCP segment that opens, closes or carries
something, as the client's end sees it: "client" or "server" (who sent it), its payload's length, and S or F where it has that
flag. Ends with its standard input.

Two TUN devices stand in for netem(8), which not every kernel has. A device moved to another namespace stays with who opened it.
"""

import collections
import fcntl
import os
import select
import stat
import struct
import subprocess
import sys
import time

TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
FIN, SYN = 0x01, 0x02


def tun(name, pid, own, other):
    fd = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", pid], check=True)
    inside = ["nsenter", "--target", pid, "--net", "ip"]
    subprocess.run([*inside, "address", "add", own, "peer", other, "dev", name], check=True)
    subprocess.run([*inside, "link", "set", name, "up"], check=True)
    return fd


def tell(sender, packet):
    version, protocol = packet[0] >> 4, packet[9]
    if version != 4 or protocol != 6:
        return
    head = (packet[0] & 15) * 4
    flags = packet[head + 13]
    payload = len(packet) - head - (packet[head + 12] >> 4) * 4
    if payload or flags & (SYN | FIN):
        print(sender, payload, "S" * bool(flags & SYN) + "F" * bool(flags & FIN), flush=True)


def main():
    delay, client_pid, server_pid = float(sys.argv[1]) / 1000, sys.argv[2], sys.argv[3]
    if not os.path.exists(TUN):
        os.makedirs(os.path.dirname(TUN), exist_ok=True)
        os.mknod(TUN, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
    client = tun("slow0", client_pid, "10.99.0.1", "10.99.0.2")
    server = tun("slow1", server_pid, "10.99.0.2", "10.99.0.1")
    print("ready", flush=True)
    # Each direction has its own queue: the delay is constant, so what came first leaves first.
    ways = {client: (server, collections.deque()), server: (client, collections.deque())}
    while True:
        due = [queue[0][0] for _, queue in ways.values() if queue]
        wait = max(0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([client, server, 0], [], [], wait)
        if 0 in readable and not os.read(0, 1):
            return
        for fd in (client, server):
            if fd in readable:
                packet = os.read(fd, 65536)
                ways[fd][1].append((time.monotonic() + delay, packet))
                if fd == client:
                    tell("client", packet)
        for to, queue in ways.values():
            while queue and queue[0][0] <= time.monotonic():
                packet = queue.popleft()[1]
                if to == client:
                    tell("server", packet)
                os.write(to, packet)


main()
