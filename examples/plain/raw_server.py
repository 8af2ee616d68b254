"""A server of the raw wire: raw_server.py PORT"""
import socket
import subprocess
import sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            if request := connection.recv(65536):
                done = subprocess.run(["/bin/sh", "-c", request], stdin=subprocess.DEVNULL, capture_output=True)
                connection.sendall(done.stdout + done.stderr or b"\n")
