"""A client of the header wire: header_client.py PORT COMMAND..."""
import hashlib
import json
import socket
import struct
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, s.makefile("rb") as stream:
    for command in sys.argv[2:]:
        s.sendall(command.encode())
        (length,) = struct.unpack("<i", stream.read(4))
        header = json.loads(stream.read(length))
        payload = stream.read(header["total_size"])
        if hashlib.md5(payload).hexdigest() != header["md5"]:
            sys.exit("the digest differs")
        sys.stdout.buffer.write(payload[: header.get("stdout_size")])
        sys.stderr.buffer.write(payload[header.get("stdout_size", len(payload)) :])
sys.exit(header.get("exit_code", 0))
