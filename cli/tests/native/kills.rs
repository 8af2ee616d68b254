//! Fronts and wardens killed again and again while commands of all kinds run: no byte and no outcome is lost, and nothing runs twice.
//!
//! The long form: `REMORA_KILLS=200,100 cargo test --release -p remora --test native kills:: -- --nocapture` (fronts, wardens).
//! `REMORA_SEED` replays its pauses.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use remora_testkit::{chance, eventually, odd_child, pattern};

use crate::bench::{Done, Home, PATIENCE, Server, run, signal, text};

/// Bytes that a flooding command prints.
const FLOOD: usize = 8 << 20;

/// Behind the kinds of commands whose client stays: those that it leaves.
const DETACHED: usize = 4;

fn kills() -> (usize, usize) {
    let given = std::env::var("REMORA_KILLS").unwrap_or_default();
    let parsed = given
        .split_once(',')
        .and_then(|(fronts, wardens)| Some((fronts.parse().ok()?, wardens.parse().ok()?)));
    parsed.unwrap_or((6, 3))
}

/// Runs one command of a kind; whether it was begun, or else refused before anything of it was sent.
fn one(home: &Home, target: &str, kind: usize, id: &str) -> bool {
    let ids = home.path("ids");
    let note = format!("echo {id} >> '{}'", text(&ids));
    let (terminal, line, wanted) = match kind {
        0 => (false, format!("{note}; echo {id}; exit 7"), format!("{id}\n").into_bytes()),
        1 => {
            let line = format!("{note}; for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done; exit 7");
            (false, line, b"1\n2\n3\n4\n5\n6\n7\n8\n".to_vec())
        }
        2 => (false, format!("{note}; '{}' flood {FLOOD} 0; exit 7", text(&odd_child())), pattern(FLOOD)),
        _ => (
            true,
            format!("{note}; stty size; sleep 0.5; echo {id}; exit 7"),
            format!("0 0\r\n{id}\r\n").into_bytes(),
        ),
    };
    let flags: &[&str] = if terminal { &["-tt"] } else { &[] };
    let more = ["--heartbeat", "1s", "--linger", "20s", target, line.as_str()];
    let done = run(home.exec(flags.iter().copied().chain(more)));
    if done.status == 194 {
        return false;
    }
    assert_eq!(done.status, 7, "{id}: {}", done.err());
    let is_same =
        if terminal { done.stdout.ends_with(format!("{id}\r\n").as_bytes()) } else { done.stdout == wanted };
    assert!(is_same, "{id}: {} of {} bytes: {}", done.stdout.len(), wanted.len(), done.err());
    true
}

/// A verb that changes nothing by being asked again: a host that isn't there just now is come back to.
fn verb(home: &Home, target: &str, words: &[&str]) -> Done {
    loop {
        let mut command = home.remora();
        command.arg(words[0]).args(&words[2..]).arg(target).arg(words[1]);
        let done = run(command);
        if done.status != 194 {
            return done;
        }
    }
}

/// Without what the client itself says of its connection, be it in the middle of a line.
fn from_the_command(stderr: &[u8], target: &str) -> Vec<u8> {
    let said = format!("remora: {target}: ").into_bytes();
    let (mut rest, mut kept) = (stderr, Vec::new());
    while let Some(at) = rest.windows(said.len()).position(|part| part == said) {
        kept.extend_from_slice(&rest[..at]);
        let end = rest[at..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| at + end + 1);
        rest = &rest[end..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// Starts one detached command, reads it and waits for it, in either order; whether it was begun, or else refused.
fn detached(home: &Home, target: &str, turn: usize, id: &str) -> bool {
    let note = format!("echo {id} >> '{}'", text(&home.path("ids")));
    let (line, out, err) = match turn % 3 {
        0 => (
            format!("{note}; echo {id}; echo not {id} >&2; exit 7"),
            format!("{id}\n").into_bytes(),
            format!("not {id}\n").into_bytes(),
        ),
        1 => {
            let line = format!(
                "{note}; for i in 1 2 3 4 5 6 7 8; do echo $i; echo -$i >&2; sleep 0.2; done; exit 7"
            );
            let err = (1..=8).map(|number| format!("-{number}\n")).collect::<String>();
            (line, b"1\n2\n3\n4\n5\n6\n7\n8\n".to_vec(), err.into_bytes())
        }
        _ => {
            let line = format!("{note}; '{}' flood {FLOOD} {FLOOD}; exit 7", text(&odd_child()));
            (line, pattern(FLOOD), pattern(FLOOD))
        }
    };
    let begun = run(home.exec(["--detach", "--heartbeat", "1s", target, line.as_str()]));
    if begun.status == 194 {
        return false;
    }
    assert_eq!(begun.status, 0, "{id}: {}", begun.err());
    let job = begun.out().trim_end().to_owned();
    assert_eq!(job.len(), 32, "{id}: {job:?}");
    let ends = || {
        let done = verb(home, target, &["wait", &job, "--heartbeat", "1s"]);
        assert_eq!(done.status, 7, "{id}: {}", done.err());
    };
    let is_followed = turn.is_multiple_of(2);
    if !is_followed {
        ends();
    }
    let follow = if is_followed { &["--follow"][..] } else { &[] };
    let done = verb(home, target, &[&["logs", &job, "--heartbeat", "1s"], follow].concat());
    assert_eq!(done.status, 0, "{id}: {}", done.err().lines().next_back().unwrap_or_default());
    let told = from_the_command(&done.stderr, target);
    assert!(done.stdout == out, "{id}: {} of {} bytes on stdout", done.stdout.len(), out.len());
    assert!(told == err, "{id}: {} of {} bytes on stderr", told.len(), err.len());
    if is_followed {
        ends();
    }
    // It doesn't come back after a loss (198). What was forgotten before the answer was lost is not found again (196).
    loop {
        let done = verb(home, target, &["forget", &job]);
        assert!(matches!(done.status, 0 | 196 | 198), "{id}: {}", done.err());
        if done.status != 198 {
            break;
        }
    }
    let done = verb(home, target, &["wait", &job, "--heartbeat", "1s"]);
    assert_eq!(done.status, 196, "{id} is forgotten: {}", done.err());
    true
}

#[test]
fn no_kill_of_a_front_or_a_warden_loses_a_byte_or_an_outcome_or_runs_anything_twice() {
    let seed = std::env::var("REMORA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    let _ = writeln!(std::io::stderr(), "REMORA_SEED={seed}");
    let (fronts, wardens) = kills();
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut server = Server::start_to_leave(&home, 0);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let (target, port) = (server.target(), server.port);
    let (over, count, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let begun: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let commands: Vec<_> = (0..=DETACHED)
            .map(|kind| {
                let (home, target, over, count, refused) = (&home, &target, &over, &count, &refused);
                scope.spawn(move || {
                    let mut begun = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let id = format!("job-{}", count.fetch_add(1, Ordering::Relaxed));
                        let is_begun = match kind {
                            DETACHED => detached(home, target, begun.len(), &id),
                            _ => one(home, target, kind, &id),
                        };
                        if is_begun {
                            begun.push(id);
                        } else {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    (kind, begun)
                })
            })
            .collect();
        let mut seed = seed;
        let (mut left_fronts, mut left_wardens) = (fronts, wardens);
        while left_fronts + left_wardens > 0 && !commands.iter().any(|one| one.is_finished()) {
            std::thread::sleep(Duration::from_millis(300 + chance(&mut seed) % 500));
            if chance(&mut seed) % (left_fronts + left_wardens) as u64 >= left_fronts as u64 {
                left_wardens -= 1;
                // As the service manager would.
                server.kill_at_once();
                server = Server::start_to_leave(&home, port);
            } else {
                left_fronts -= 1;
                let front = server.front();
                signal(front, "KILL");
                eventually(PATIENCE, "another front", || server.front() != front);
            }
        }
        over.store(true, Ordering::Relaxed);
        commands.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let many = |detached: bool| -> usize {
        begun.iter().filter(|(kind, _)| (*kind == DETACHED) == detached).map(|(_, ids)| ids.len()).sum()
    };
    let mut times: HashMap<String, usize> = HashMap::new();
    for id in home.text("ids").lines() {
        *times.entry(id.to_owned()).or_default() += 1;
    }
    let _ = writeln!(
        std::io::stderr(),
        "{fronts} fronts and {wardens} wardens killed: {} commands run, {} detached besides, {} refused before they were sent",
        many(false),
        many(true),
        refused.load(Ordering::Relaxed)
    );
    assert!(begun.iter().flat_map(|(_, ids)| ids).all(|id| times.remove(id) == Some(1)), "each ran once");
    assert!(times.is_empty(), "of what was refused nothing ran: {times:?}");
    // A job whose front was killed between its receipt and the client's good-bye is kept for who may come late, its linger time and ten
    // minutes more. A server that ends its commands forgets them.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let mut last = Server::start_with(&home, &["host_key"], &[]);
    last.signal("TERM");
    assert_eq!(last.wait().code(), Some(0));
    eventually(PATIENCE, "no folder is left", || crate::keepers::jobs(&home) == 0);
}
