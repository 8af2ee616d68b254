#!/usr/bin/env python3
"""Which crate may know which (docs/ARCHITECTURE.md), over `cargo metadata`; and house rules that no lint knows."""
import json, pathlib, re, subprocess, sys

root = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = {
    "remora-wire": set(),
    "remora-identity": set(),
    "remora-net": {"remora-wire", "remora-identity"},
    "remora-engine": {"remora-identity"},
    "remora-client": {"remora-wire", "remora-identity", "remora-net"},
    "remora-server": {"remora-wire", "remora-identity", "remora-net", "remora-engine"},
    "remora": {"remora-wire", "remora-identity", "remora-net", "remora-client", "remora-server"},
    "remora-testkit": set(),
    "remora-protogen": set(),
}
# The protocol core must stay without I/O, runtime, clock and chance; the two below must stay without sockets of their own.
FORBIDDEN = {
    "remora-wire": {"tokio", "rustls", "rustix", "libc", "rand", "getrandom", "mio", "socket2", "jiff"},
    "remora-identity": {"tokio", "rustls", "mio", "socket2", "jiff"},
    "remora-engine": {"rustls", "prost", "socket2"},
}
NO_LICENCE = re.compile(r"\b(A?GPL|LGPL|SSPL|BUSL|CC-BY-NC)", re.I)
wrong = []

meta = json.loads(subprocess.check_output(
    ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=root))
names = {package["id"]: package["name"] for package in meta["packages"]}
members = {names[member] for member in meta["workspace_members"]}
for package in meta["packages"]:
    name = package["name"]
    if name in members:
        if name not in ALLOWED:
            wrong.append(f"{name}: not in the list of crates; add it to tools/check-crates.py and docs/ARCHITECTURE.md")
            continue
        for dependency in package["dependencies"]:
            # Tests may use the testkit, and whatever they need to build two ends.
            if dependency["kind"] == "dev":
                continue
            other = dependency["name"]
            if other in members and other not in ALLOWED[name]:
                wrong.append(f"{name} must not know {other}")
            if other in FORBIDDEN.get(name, ()):
                wrong.append(f"{name} must not use {other}")
    else:
        licence = package.get("license") or ""
        # A choice is fine where one of the alternatives is.
        if NO_LICENCE.search(licence) and not re.search(r"\bOR\b", licence):
            wrong.append(f"{name}: licence {licence}")
        if name in ("openssl", "openssl-sys", "native-tls"):
            wrong.append(f"{name}: no OpenSSL")

for path in sorted(root.glob("*/src/**/*.rs")) + sorted(root.glob("tools/*/src/**/*.rs")):
    relative = path.relative_to(root).as_posix()
    text = path.read_text()
    code = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\])*\"", "", text)
    if re.search(r"\bunsafe\b", code) and not relative.startswith("engine/src/sys/"):
        wrong.append(f"{relative}: unsafe code outside engine/src/sys")
    if relative.startswith("engine/src/sys/"):
        blocks = len(re.findall(r"\bunsafe\s*\{", code))
        if blocks > len(re.findall(r"// SAFETY:", text)):
            wrong.append(f"{relative}: an unsafe block without its // SAFETY: claim")
    lines = text.count("\n")
    if lines > 800 and not re.search(r"(?i)lines|long", "\n".join(text.splitlines()[:8])):
        wrong.append(f"{relative}: {lines} lines, and its first lines don't say why")
    if not text.startswith("//"):
        wrong.append(f"{relative}: doesn't open with what it is for")

for line in wrong:
    print(line, file=sys.stderr)
sys.exit(1 if wrong else 0)
