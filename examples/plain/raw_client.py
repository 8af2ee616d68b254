"""A client of the raw wire: raw_client.py [--guess] PORT COMMAND"""
import socket
import sys

guess = sys.argv[1] == "--guess"
port, command = sys.argv[-2:]
with socket.create_connection(("127.0.0.1", int(port))) as s:
    s.sendall(command.encode())
    if not guess:
        s.shutdown(socket.SHUT_WR)  # no more requests; the server answers, then closes
    try:
        while data := s.recv(65536):
            sys.stdout.buffer.write(data)
            if guess:
                s.settimeout(0.5)  # half a second of silence is taken for the end: a guess
    except socket.timeout:
        pass
