"""A server of the header wire: header_server.py PORT"""
import hashlib
import json
import socket
import struct
import subprocess
import sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            while request := connection.recv(65536):
                done = subprocess.run(["/bin/sh", "-c", request], stdin=subprocess.DEVNULL, capture_output=True)
                payload = done.stdout + done.stderr
                header = {"total_size": len(payload), "md5": hashlib.md5(payload).hexdigest(), "filename": "reply.txt"}
                head = json.dumps(header).encode()
                connection.sendall(struct.pack("<i", len(head)) + head + payload)
