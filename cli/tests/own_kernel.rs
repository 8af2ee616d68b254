//! What depends on the kernel's set-up, shown in a kernel of its own: User Mode Linux, a Linux that runs as an ordinary process
//! with this machine's file system as its root. It is of the 6.1 series, and its cgroups are all v2, whatever this machine's are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What runs in it as process 1.
const BOOT: &str = r#"#!/bin/sh
results=RESULTS remora=REMORA child=CHILD
exec > "$results/log" 2>&1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmp /tmp
export HOME=/tmp/home; mkdir -m 700 $HOME
mkdir /tmp/stage

# $1: where the server is put, $2: the name of the result.
limited() {
    printf '[limits]\nmemory_bytes = 67108864\n' > /tmp/config
    (
        [ -z "$1" ] || echo 0 > "/sys/fs/cgroup/$1/cgroup.procs"
        exec "$remora" serve --listen unix:/tmp/socket --config /tmp/config --state-dir /tmp/state
    ) &
    while [ ! -S /tmp/socket ]; do sleep 0.05; done
    "$remora" exec --json unix:/tmp/socket "$child" burn 1 200 > "$results/$2.large"
    "$remora" exec --json unix:/tmp/socket "$child" burn 1 20 > "$results/$2.small"
    kill -TERM $!; wait $!
    find /sys/fs/cgroup -name 'remora-*' > "$results/$2.left"
    rm -f /tmp/socket
}

limited "" root

# As a unit with Delegate=memory and DelegateSubgroup=server is set up.
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/unit/server
limited unit/server handed-to-nobody
python3 -c "import os; os.setxattr('/sys/fs/cgroup/unit', 'trusted.delegate', b'1')"
limited unit/server delegated

# A client that is killed takes its command with it (before Linux 6.9 groups are signalled by number).
"$remora" exec local "trap '' TERM; echo \$\$; sleep 1000 & sleep 1001" > /tmp/group &
client=$!
while [ ! -s /tmp/group ]; do sleep 0.05; done
kill -KILL $client
tries=0
while kill -0 "-$(cat /tmp/group)" 2>/dev/null && [ $tries -lt 600 ]; do sleep 0.05; tries=$((tries + 1)); done
kill -0 "-$(cat /tmp/group)" 2>/dev/null || echo gone > "$results/group"

uname -r > "$results/finished"
poweroff -f
"#;

fn boot(script: &str) -> tempfile::TempDir {
    let results = tempfile::Builder::new().prefix("kernel").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let init = results.path().join("init");
    let script = script
        .replace("RESULTS", results.path().to_str().unwrap())
        .replace("REMORA", env!("CARGO_BIN_EXE_remora"))
        .replace("CHILD", remora_testkit::odd_child().to_str().unwrap());
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let console = fs::File::create(results.path().join("console")).unwrap();
    let status = Command::new("timeout")
        .args(["-k", "5", "240", "linux.uml", "mem=512M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"])
        .args(["con=null", "con0=null,fd:1"])
        .arg(format!("init={}", init.display()))
        .current_dir(results.path())
        .env("HOME", results.path())
        .stdin(Stdio::null())
        .stderr(console.try_clone().unwrap())
        .stdout(console)
        .status()
        .expect("linux.uml (user-mode-linux) is needed");
    let read = |name: &str| fs::read_to_string(results.path().join(name)).unwrap_or_default();
    assert!(
        results.path().join("finished").exists(),
        "the kernel ended with {status}: {}\n{}",
        read("console"),
        read("log")
    );
    results
}

#[test]
fn memory_is_limited_by_a_cgroup_and_a_killed_client_leaves_nothing() {
    let results = boot(BOOT);
    let read = |name: &str| fs::read_to_string(results.path().join(name)).unwrap();
    let receipt = |name: &str| -> Value {
        serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}: {}", read("log")))
    };
    for place in ["root", "delegated"] {
        let large = receipt(&format!("{place}.large"));
        assert_eq!(large["memory_limit_by"], "cgroup", "{place}: {large}\n{}", read("log"));
        assert_eq!(large["outcome"]["by"], "limit: memory", "{place}: {large}");
        let small = receipt(&format!("{place}.small"));
        assert_eq!(small["outcome"]["status"], 0, "{place}: {small}");
        let peak = small["peak_memory_bytes"].as_f64().unwrap();
        assert!((20e6..60e6).contains(&peak), "{place}: {small}");
    }
    // A cgroup that systemd didn't hand over isn't touched.
    let refused = receipt("handed-to-nobody.large");
    assert_eq!(refused["memory_limit_by"], "rlimit", "{refused}");
    for place in ["root", "delegated", "handed-to-nobody"] {
        assert_eq!(read(&format!("{place}.left")), "", "cgroups are left");
    }
    assert_eq!(read("group"), "gone\n", "{}", read("log"));
}
