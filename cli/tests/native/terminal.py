"""A person at a terminal: runs a command on a pty and does what it is told, a step at a time.

    terminal.py STEPS COMMAND…      STEPS is a JSON list of:

["expect", TEXT]        wait until TEXT was shown, behind what was expected before
["type", TEXT]          type it
["resize", ROWS, COLS]  change the window
["signal", NAME]        send a signal to the command
["modes"]               show the terminal's modes, as one word
["pause", SECONDS]      look on
["stopped"]             wait until the command is stopped
["end"]                 wait for the command's end and show its status

Shows all that came, then a line for each step that shows something. Ends with 1 at the first step that fails.
"""
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

# Less than the tests have, so that it can still tell what it was waiting for.
PATIENCE = 40
steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, at, told, status = b"", 0, [], None


def fail(step):
    sys.stdout.buffer.write(seen + f"\n[failed: {step}; expected behind {seen[at:]!r}]\n".encode())
    sys.stdout.flush()
    os.kill(pid, signal.SIGKILL)
    sys.exit(1)


def read(seconds):
    global seen
    if select.select([fd], [], [], seconds)[0]:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            return False
        seen += chunk
        return bool(chunk)
    return None


for step in steps:
    name, *rest = step
    until = time.monotonic() + PATIENCE
    if name == "expect":
        text = rest[0].encode()
        while text not in seen[at:]:
            if read(1) is False or time.monotonic() > until:
                fail(step)
        at = seen.index(text, at) + len(text)
    elif name == "type":
        rest = rest[0].encode()
        while rest:
            # A terminal that is full is one that has to be read first.
            if select.select([], [fd], [], 0)[1]:
                rest = rest[os.write(fd, rest[:1024]):]
            else:
                read(0.1)
    elif name == "resize":
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rest[0], rest[1], 0, 0))
    elif name == "pause":
        until = time.monotonic() + rest[0]
        while time.monotonic() < until:
            read(0.05)
    elif name == "signal":
        os.kill(pid, getattr(signal, "SIG" + rest[0]))
    elif name == "modes":
        told.append("modes " + ",".join(map(str, termios.tcgetattr(fd)[:4])))
    elif name == "stopped":
        while True:
            if os.waitpid(pid, os.WUNTRACED | os.WNOHANG)[0] == pid:
                break
            read(0.05)
            if time.monotonic() > until:
                fail(step)
    elif name == "end":
        while status is None:
            ended, raw = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = os.waitstatus_to_exitcode(raw)
            elif time.monotonic() > until:
                fail(step)
            read(0.05)
        while read(0):
            pass
        told.append(f"status {status}")
sys.stdout.buffer.write(seen)
sys.stdout.write("\n" + "\n".join(told) + "\n")
