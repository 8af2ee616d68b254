"""A client of the length wire: length_client.py PORT COMMAND..."""
import socket
import struct
import sys


def exactly(s, count):
    data = b""
    while len(data) < count:
        data += s.recv(count - len(data)) or sys.exit("the server stopped half-way")
    return data


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for command in sys.argv[2:]:  # one connection carries many requests, one at a time
        s.sendall(command.encode())
        (length,) = struct.unpack("<i", exactly(s, 4))
        sys.stdout.buffer.write(exactly(s, length))
