"""A server of the length wire: length_server.py PORT"""
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
                reply = done.stdout + done.stderr
                connection.sendall(struct.pack("<i", len(reply)) + reply)
