//! Many commands through one server: what each of them needed is given back.
//!
//! The long form: `REMORA_JOBS=10000 cargo test -p remora --test native many_jobs:: -- --nocapture`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use remora_testkit::{children, eventually};

use crate::bench::{Home, PATIENCE, Server, run, text};
use crate::keepers::jobs;

/// Commands at the same time.
const AT_ONCE: usize = 8;

/// Keepers that may wait for a command: the warden's spares, and those that the front has greeted already.
const IDLE: usize = 2 + 4;

/// Resident memory may grow by so much from the end of the first third on.
const GROWTH_KIB: u64 = 4096;

fn count() -> usize {
    std::env::var("REMORA_JOBS").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident memory, in KiB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        found.insert(text(&path).to_owned());
        if path.is_dir() {
            found.extend(files(&path));
        }
    }
    found
}

/// One after the other, with bytes both ways and a status of its own each.
fn some(home: &Home, socket: &str, next: &AtomicUsize, end: usize) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return;
        }
        let status = i32::try_from(number % 100).unwrap();
        let line = format!("echo out {number}; echo err {number} >&2; exit {status}");
        let done = run(home.exec([socket, &line])).ended(status);
        assert_eq!((done.out(), done.err()), (format!("out {number}\n"), format!("err {number}\n")));
    }
}

#[test]
fn many_commands_leave_no_descriptor_process_file_or_memory() {
    let home = Home::with_key();
    let socket = format!("unix:{}", text(&home.path("socket")));
    let server = Server::start_with(&home, &[], &["--listen", &socket]);
    let (warden, front) = (server.pid(), server.front());
    let run_all = |numbers: Range<usize>| {
        let next = AtomicUsize::new(numbers.start);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| some(&home, &socket, &next, numbers.end));
            }
        });
        eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
        let count = || children(warden).len();
        eventually(PATIENCE, "no process but the front and idle keepers", || count() <= 1 + IDLE);
    };
    run_all(0..1);
    let (open_front, open_warden) = (descriptors(front), descriptors(warden));
    let before = files(&home.path("state"));
    run_all(1..count() / 3);
    let third = [resident(front), resident(warden)];
    run_all(count() / 3..count());
    eventually(PATIENCE, "no descriptor of the front is left", || descriptors(front) <= open_front + IDLE);
    eventually(PATIENCE, "no descriptor of the warden is left", || descriptors(warden) <= open_warden);
    assert!(children(front).is_empty());
    for child in children(warden).into_iter().filter(|child| *child != front) {
        assert_eq!(children(child), [0; 0], "a keeper that waits has no command");
    }
    assert_eq!(server.front(), front, "the one of the start");
    assert_eq!(files(&home.path("state")), before);
    let end = [resident(front), resident(warden)];
    let _ = writeln!(
        std::io::stderr(),
        "{} commands: front {} KiB after a third, {} at the end; warden {} and {}; descriptors {} and {}",
        count(),
        third[0],
        end[0],
        third[1],
        end[1],
        descriptors(front),
        descriptors(warden)
    );
    assert!(end[0] <= third[0] + GROWTH_KIB, "the front grew from {} to {} KiB", third[0], end[0]);
    assert!(end[1] <= third[1] + GROWTH_KIB, "the warden grew from {} to {} KiB", third[1], end[1]);
}
