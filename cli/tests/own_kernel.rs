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

/// Begins what runs in it as process 1.
const BOOT: &str = r#"#!/bin/sh
results=RESULTS remora=REMORA child=CHILD
exec > "$results/log" 2>&1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmp /tmp
export HOME=/tmp/home; mkdir -m 700 $HOME
"#;

/// Ends it.
const DOWN: &str = r#"
uname -r > "$results/finished"
poweroff -f
"#;

const MEMORY: &str = r#"
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
"#;

/// Bytes that a command prints at its end: more than fits into any buffer on the way.
const FLOOD: usize = 3 << 20;

const PROCESSES: &str = r#"
mkdir -m 1777 /tmp/at
# Where the other user may come, too.
mkdir /tmp/bin; touch /tmp/bin/remora /tmp/bin/child
mount --bind "$remora" /tmp/bin/remora; remora=/tmp/bin/remora
mount --bind "$child" /tmp/bin/child; child=/tmp/bin/child
socket=unix:/tmp/at/socket

# $1: the user. Starts a server of theirs, in the cgroup where this shell is.
serve() {
    setpriv --reuid="$1" --clear-groups "$remora" serve --listen $socket --state-dir "/tmp/at/$1" &
    server=$!
    while [ ! -S /tmp/at/socket ]; do sleep 0.05; done
}

# $1: the user, then the command and its arguments.
run() {
    user=$1; shift
    setpriv --reuid="$user" --clear-groups "$remora" exec --argv -C /tmp/at $socket "$@"
}

# $1: the user, $2: the name of the results. `limit` and `unlimit` do that.
at_the_limit() {
    running=
    for number in 1 2 3; do
        mkfifo -m 666 "/tmp/at/$2.$number"
        {
            # Forks nothing itself.
            run "$1" sh -c "echo begun; read line < /tmp/at/$2.$number; exec $child flood FLOOD 0"
            echo $? > "$results/$2.status.$number"
        } > "$results/$2.running.$number" 2> "$results/$2.err.$number" &
        running="$running $!"
        while [ ! -s "$results/$2.running.$number" ]; do sleep 0.05; done
    done
    limit
    # The first ones have keepers that waited already.
    for number in 1 2 3 4 5 6 7 8; do
        run "$1" true 2>> "$results/$2.refused"
        echo $? >> "$results/$2.refusals"
    done
    for number in 1 2 3; do echo go on > "/tmp/at/$2.$number"; done
    wait $running
    unlimit
    for number in 1 2 3 4 5 6 7 8; do
        run "$1" true
        echo $? >> "$results/$2.afterwards"
    done
    kill -TERM $server; wait $server
    echo $? > "$results/$2.server"
    rm -f /tmp/at/socket
}

group=/sys/fs/cgroup/server
echo +pids > /sys/fs/cgroup/cgroup.subtree_control
mkdir $group
echo $$ > $group/cgroup.procs
serve root
echo $$ > /sys/fs/cgroup/cgroup.procs
limit() { echo 1 > $group/pids.max; }
unlimit() { echo max > $group/pids.max; }
at_the_limit root cgroup

serve nobody
# Each of the server's own processes: who is a client of it is nobody, too, and has no limit.
most() {
    for pid in $(pgrep -u nobody -f ' serve '); do prlimit --pid "$pid" --nproc="$1"; done
}
limit() { most 1:unlimited; }
unlimit() { most unlimited; }
at_the_limit nobody rlimit
"#;

/// Begins systemd as process 1, which runs what follows as a service. What is written stays in this kernel's memory.
const SYSTEMD: &str = r#"#!/bin/sh
exec > RESULTS/log 2>&1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmp /run
mkdir -p /run/results /run/systemd/system/remora.service.d
mount -t hostfs -o RESULTS none /run/results
cp REMORA /run/remora
cp UNIT /run/systemd/system/remora.service
mount -t tmpfs -o mode=755 tmp /var/lib
mount -t tmpfs -o mode=1777 tmp /tmp
# No network, and another place for the program: all else is as the unit says.
cat > /run/systemd/system/remora.service.d/here.conf <<'X'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=
ExecStart=/run/remora serve --listen unix:/run/s.sock --state-dir /var/lib/remora
X
cat > /run/systemd/system/steps.service <<'X'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /run/results/steps
StandardOutput=file:/run/results/out
StandardError=file:/run/results/err
TimeoutStartSec=infinity
Environment=HOME=/tmp
X
cat > /run/systemd/system/here.target <<'X'
[Unit]
DefaultDependencies=no
Wants=steps.service
X
exec > /run/log 2>&1
mount -o remount,ro /
exec /lib/systemd/systemd --system --unit=here.target
"#;

/// The unit, through what a service goes through.
const SERVICE: &str = r#"
R=/run/remora; S=unix:/run/s.sock; cd /run/results
main() { systemctl show -p MainPID --value remora; }
sleeps() { ps -eo pid,args | awk '$2 == "sleep" && $3 ~ /^100[012]$/ { print $1 }'; }
until_true() {
    tries=0
    while ! eval "$1" && [ $tries -lt 1200 ]; do sleep 0.05; tries=$((tries + 1)); done
    eval "$1" || echo "not: $1"
}
state() { systemctl is-active remora; }

systemctl start remora; echo "start $?, $(state)"
line='while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 1 20000'
$R exec $S "echo begun; $line; exit 5" > attached.out 2> attached.err & client=$!
id=$($R exec --detach $S "$line; exit 7")
tree=$($R exec --detach $S 'trap "" TERM; setsid sleep 1000 & (setsid sleep 1001 &); sleep 1002')
until_true '[ -s attached.out ] && [ $(sleeps | wc -l) = 3 ]'
for pid in $(sleeps); do cat /proc/$pid/cgroup; done | sort -u > cgroups

systemctl reload remora; echo "reload $?, $(state)"
before=$(main)
systemctl restart remora; echo "restart $?, $(state)"
[ "$(main)" != "$before" ] && echo "another warden"
before=$(main)
kill -KILL $(pgrep -P $before -f -- --warden-link=)
until_true 'pgrep -P $(main) -f -- --warden-link= > /dev/null'
kill -KILL $before
until_true '[ "$(main)" != "$before" ] && [ "$(state)" = active ]'
echo "killed, $(state), $(systemctl show -p NRestarts --value remora) restarted"
systemctl stop remora; echo "stop $?, $(state), $(sleeps | wc -l) go on"
systemctl start remora; echo "start $?, $(state)"

$R stop $S $tree 2> /dev/null; echo "stopped $?"
until_true '[ -z "$(sleeps)" ]'; echo "$(sleeps | wc -l) left"
touch /tmp/go
wait $client; echo "attached $?"
$R wait $S $id; echo "detached $?"
seq 1 20000 > /tmp/whole
$R logs $S $id | cmp - /tmp/whole && tail -n +2 attached.out | cmp - /tmp/whole && echo "all there"
systemctl stop remora; echo "stop $?"
find /sys/fs/cgroup/system.slice/remora.service -name 'remora-*' 2> /dev/null > left
uname -r > finished
poweroff -f
"#;

fn boot(script: &str) -> tempfile::TempDir {
    boot_init(&[BOOT, script, DOWN].concat(), "")
}

/// Boots a kernel whose process 1 is this script; `steps` are beside it.
fn boot_init(init_script: &str, steps: &str) -> tempfile::TempDir {
    let results = tempfile::Builder::new().prefix("kernel").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let init = results.path().join("init");
    fs::write(results.path().join("steps"), steps).unwrap();
    let script = init_script
        .replace("FLOOD", &FLOOD.to_string())
        .replace("UNIT", concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/remora.service"))
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
    let results = boot(MEMORY);
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

#[test]
fn the_unit_is_run_by_a_real_systemd_and_commands_outlive_whatever_it_does() {
    let results = boot_init(SYSTEMD, SERVICE);
    let read = |name: &str| fs::read_to_string(results.path().join(name)).unwrap_or_default();
    let expected = "start 0, active\nreload 0, active\nrestart 0, active\nanother warden\n\
        killed, active, 1 restarted\nstop 0, inactive, 3 go on\nstart 0, active\nstopped 0\n0 left\n\
        attached 5\ndetached 7\nall there\nstop 0\n";
    assert_eq!(read("out"), expected, "{}\n{}\n{}", read("err"), read("attached.err"), read("console"));
    // One keeper's, below the service's, for all of its command, whatever has left its session.
    let cgroups = read("cgroups");
    assert!(
        cgroups.starts_with("0::/system.slice/remora.service/") && cgroups.lines().count() == 1,
        "{cgroups}"
    );
    assert_eq!(read("left"), "");
}

#[test]
fn at_the_limit_of_processes_new_commands_are_refused_and_none_is_harmed() {
    let results = boot(PROCESSES);
    let read = |name: &str| fs::read_to_string(results.path().join(name)).unwrap();
    for by in ["cgroup", "rlimit"] {
        let said = read(&format!("{by}.refused"));
        assert_eq!(read(&format!("{by}.refusals")), "194\n".repeat(8), "{by}: {said}\n{}", read("log"));
        assert_eq!(said.lines().count(), 8, "{by}: {said}");
        for line in said.lines() {
            let words = ["can't start another process", "no room to keep the job"];
            assert!(words.iter().any(|words| line.contains(words)), "{by}: {line}");
            assert!(line.contains("Resource temporarily unavailable"), "{by}: {line}");
        }
        for number in 1..=3 {
            let name = |what: &str| format!("{by}.{what}.{number}");
            assert_eq!(read(&name("status")), "0\n", "{by}: {}\n{}", read(&name("err")), read("log"));
            let out = fs::read(results.path().join(name("running"))).unwrap();
            let whole = [b"begun\n".as_slice(), &remora_testkit::pattern(FLOOD)].concat();
            assert!(out == whole, "{by}: {} bytes", out.len());
        }
        assert_eq!(read(&format!("{by}.afterwards")), "0\n".repeat(8), "{by}: {}", read("log"));
        assert_eq!(read(&format!("{by}.server")), "0\n", "{by}: {}", read("log"));
    }
}
