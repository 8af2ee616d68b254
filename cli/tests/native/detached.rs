//! Detached commands: `remora exec --detach`, and the verbs that ask for them afterwards.

use std::fs;
use std::process::Command;

use remora_testkit::{children, eventually, group_members, is_alive};
use serde_json::Value;

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, run_on_terminal, signal};

fn server_with(home: &Home, flags: &[&str]) -> Server {
    if !home.path("host_key").exists() {
        home.make_key("host_key", "ed25519", "");
    }
    // A server that is started anew has the same address there, and another port.
    let socket = target(home);
    let usual = Server::command(home, &["host_key"]);
    let usual: Vec<_> = usual.get_args().filter(|one| *one != "--stop-jobs").map(ToOwned::to_owned).collect();
    let mut command = home.remora();
    command.args(usual).args(["--listen", "native://127.0.0.1:0", "--listen", &socket]).args(flags);
    let server = Server::spawn(home, command);
    home.write(".ssh/known_hosts", &server.known_line(home, "host_key"));
    server
}

pub(crate) fn server(home: &Home) -> Server {
    server_with(home, &["--stop-jobs"])
}

/// The folders of jobs.
fn folders(home: &Home) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(home.path("state/jobs")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

pub(crate) fn target(home: &Home) -> String {
    format!("unix:{}", home.path("s").display())
}

/// Starts a line detached, and gives its id.
pub(crate) fn detach(home: &Home, options: &[&str], line: &str) -> String {
    let target = target(home);
    let done = run(home.exec([&["--detach"], options, &[&target, line]].concat())).ended(0);
    let id = done.out().trim_end().to_owned();
    assert!(id.len() == 32 && done.out().len() == 33, "{:?}", done.out());
    assert_eq!(done.err(), "");
    id
}

/// `remora VERB TARGET JOB` and what follows.
pub(crate) fn verb(home: &Home, words: &[&str]) -> Done {
    let mut command = home.remora();
    command.arg(words[0]).arg(target(home)).args(&words[1..]);
    run(command)
}

pub(crate) fn jobs(home: &Home) -> Vec<Value> {
    let done = verb(home, &["jobs", "--json"]).ended(0);
    let object: Value = serde_json::from_str(&done.out()).unwrap();
    object["jobs"].as_array().unwrap().clone()
}

/// The process that serves, which the first one has started.
fn front(server: &Server) -> i32 {
    let is_front = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--warden-link=") && is_alive(*pid)
    };
    let mut found = None;
    eventually(PATIENCE, "a front", || {
        found = children(server.pid()).into_iter().find(is_front);
        found.is_some()
    });
    found.unwrap()
}

/// Kills the process that serves, and waits for the next one.
pub(crate) fn kill_front(home: &Home, server: &Server) {
    let first = front(server);
    signal(first, "KILL");
    eventually(PATIENCE, "another front", || {
        // The dead one's socket may live for as long as the last of its threads.
        front(server) != first && std::os::unix::net::UnixStream::connect(home.path("s")).is_ok()
    });
}

#[test]
fn a_detached_command_outlives_its_client_and_its_front_and_nothing_is_lost() {
    let home = Home::with_key();
    let server = server(&home);
    let go = home.path("go");
    let line = format!(
        "seq 1 200000; echo warned >&2; while [ ! -e {} ]; do sleep 0.02; done; seq 200001 300000; exit 7",
        go.display()
    );
    let id = detach(&home, &[], &line);
    let list = jobs(&home);
    assert_eq!(
        (list.len(), list[0]["id"].as_str(), list[0]["state"].as_str()),
        (1, Some(&*id), Some("running"))
    );
    assert_eq!(list[0]["command"]["line"], line);
    kill_front(&home, &server);
    server.wait_for_log("detached job taken up");
    fs::write(&go, "").unwrap();
    verb(&home, &["wait", &id[..8]]).ended(7);
    let whole: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let done = verb(&home, &["logs", &id]).ended(0);
    assert!(done.stdout == whole.as_bytes() && done.err() == "warned\n", "{} bytes", done.stdout.len());
    let object: Value = serde_json::from_str(&verb(&home, &["wait", "--json", &id]).ended(7).out()).unwrap();
    assert_eq!(object["stdout"]["length"], whole.len());
    assert_eq!(object["stdout"]["blake3"], blake3::hash(whole.as_bytes()).to_hex().as_str());
    assert_eq!((&object["spool"]["was_full"], &object["proven"]), (&Value::Bool(false), &Value::Bool(true)));
    // Its keeper is gone, and its folder isn't until it is forgotten.
    assert_eq!(folders(&home).len(), 1);
    kill_front(&home, &server);
    verb(&home, &["wait", &id]).ended(7);
    verb(&home, &["forget", &id]).ended(0);
    assert_eq!(folders(&home).len(), 0);
    verb(&home, &["logs", &id]).complained(196, "remora: unix:", "no job of yours");
}

#[test]
fn a_server_that_is_stopped_and_another_one_take_it_over() {
    let home = Home::with_key();
    let mut first = server_with(&home, &[]);
    let id = detach(&home, &[], "echo before; sleep 1; echo behind; exit 3");
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    let _second = server(&home);
    verb(&home, &["wait", &id]).ended(3);
    assert_eq!(verb(&home, &["logs", &id]).ended(0).out(), "before\nbehind\n");
}

#[test]
fn logs_give_any_part_in_the_order_in_which_it_was_read() {
    let home = Home::with_key();
    let _server = server(&home);
    let line = "for i in 1 2 3; do echo out$i; sleep 0.1; echo err$i >&2; sleep 0.1; done";
    let id = detach(&home, &[], line);
    // Followed while it runs, to its end.
    let done = verb(&home, &["logs", "--follow", &id]).ended(0);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("out1\nout2\nout3\n", "err1\nerr2\nerr3\n"));
    let out = |words: &[&str]| verb(&home, &[&["logs", &id], words].concat()).ended(0).out();
    assert_eq!(out(&["--stream", "stdout", "--since-offset", "7"]), "t2\nout3\n");
    assert_eq!(out(&["--stream", "stdout", "--tail", "1"]), "out3\n");
    assert_eq!(out(&["--stream", "stdout", "--max-bytes", "4"]), "out1");
    let mut order = String::new();
    let mut next = 0;
    loop {
        let at = next.to_string();
        let text = out(&["--json", "--max-bytes", "7", "--since-offset", &at]);
        let object: Value = serde_json::from_str(&text).unwrap();
        for piece in object["pieces"].as_array().unwrap() {
            order.push_str(piece["data"].as_str().unwrap());
        }
        next = object["next"].as_u64().unwrap();
        if object["over"] == true {
            break;
        }
    }
    assert_eq!(order, "out1\nerr1\nout2\nerr2\nout3\nerr3\n");
    let text = out(&["--json", "--tail", "2"]);
    let object: Value = serde_json::from_str(&text).unwrap();
    let data: Vec<&str> =
        object["pieces"].as_array().unwrap().iter().map(|piece| piece["data"].as_str().unwrap()).collect();
    assert_eq!(data.concat(), "out3\nerr3\n");
}

#[test]
fn a_limit_holds_back_ends_or_drops_and_the_receipt_says_which() {
    let home = Home::with_key();
    let _server = server(&home);
    let options = |on_full| ["--spool-limit", "100k", "--on-full", on_full];
    let held = detach(&home, &options("wait"), "head -c 3000000 /dev/zero");
    eventually(PATIENCE, "it is held back", || verb(&home, &["jobs"]).ended(0).out().contains("held back"));
    let done = verb(&home, &["stop", &held]).ended(0);
    assert!(done.err().contains("killed by SIGTERM"), "{}", done.err());
    let done = verb(&home, &["wait", &held]).ended(143);
    assert!(done.err().contains("(stop)") && done.err().contains("held back"), "{}", done.err());

    let ended = detach(&home, &options("kill"), "exec cat /dev/zero");
    let done = verb(&home, &["wait", &ended]).ended(143);
    assert!(done.err().contains("limit: spool") && done.err().contains("ended for it"), "{}", done.err());
    assert_eq!(verb(&home, &["logs", &ended]).ended(0).stdout.len(), 100 * 1024);

    let dropped = detach(&home, &options("drop-oldest"), "seq 1 100000");
    let done = verb(&home, &["wait", &dropped]).ended(0);
    assert!(done.err().contains("the oldest output was dropped"), "{}", done.err());
    let whole: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let done = verb(&home, &["logs", "--stream", "stdout", &dropped]).ended(0);
    assert!(whole.ends_with(&done.out()) && done.stdout.len() > 80 * 1024, "{}", done.stdout.len());
    assert!(done.err().contains("stdout from offset 0 to "), "{}", done.err());
}

#[test]
fn names_and_short_ids_mean_one_job_and_never_another_owners() {
    let home = Home::with_key();
    let server = server(&home);
    let id = detach(&home, &["--name", "build"], "sleep 1000");
    let second = run(home.exec(["--detach", "--name", "build", &target(&home), "true"]));
    second.complained(196, "remora: unix:", &format!("a job named build runs already: {id}"));
    verb(&home, &["forget", "build"]).complained(196, "remora: unix:", "stop it first");
    verb(&home, &["signal", "build", "SIGKILL"]).ended(0);
    verb(&home, &["wait", "build"]).ended(137);
    let next = detach(&home, &["--name", "build"], "exit 5");
    verb(&home, &["wait", "build"]).ended(5);
    for _ in 0..16 {
        detach(&home, &[], "true");
    }
    let ids: Vec<String> = jobs(&home).iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 18);
    let shared = ids.iter().find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1).unwrap();
    let done = verb(&home, &["wait", &shared[..1]]);
    done.complained(196, "remora: unix:", "several jobs have ids that begin with");

    // Who has come by another way, here with a key, sees nothing of it.
    let mut command = home.remora();
    command.args(["wait", &server.target(), &next]);
    run(command).complained(196, "remora: 127.0.0.1:", "no job of yours");
    let mut command = home.remora();
    command.args(["jobs", "--json", &server.target()]);
    assert!(run(command).ended(0).out().contains("\"jobs\":[]"));
}

#[test]
fn a_lease_that_nobody_renews_ends_its_command() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &["--lease", "600ms"], "echo $$; sleep 1000 & sleep 1000");
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(1500) {
        verb(&home, &["renew", &id]).ended(0);
    }
    assert_eq!(jobs(&home)[0]["state"], "running");
    eventually(PATIENCE, "it is ended", || jobs(&home)[0]["state"] == "ended");
    let done = verb(&home, &["wait", &id]).ended(143);
    assert!(done.err().contains("(lease)"), "{}", done.err());
    let group = verb(&home, &["logs", &id]).ended(0).out().trim().parse().unwrap();
    assert!(group_members(group).is_empty());
    // Who waits renews it.
    let id = detach(&home, &["--lease", "300ms"], "sleep 1.2; exit 4");
    verb(&home, &["wait", &id]).ended(4);
}

#[test]
fn a_killed_keeper_is_told_and_what_was_printed_stays() {
    let home = Home::with_key();
    let server = server(&home);
    let id = detach(&home, &[], "echo $$; sleep 1000");
    let logs = || verb(&home, &["logs", &id]).ended(0).out();
    eventually(PATIENCE, "its number", || logs().ends_with('\n'));
    let group: i32 = logs().trim().parse().unwrap();
    let all = children(server.pid());
    let keeper = all.into_iter().find(|keeper| children(*keeper).contains(&group)).expect("a keeper");
    signal(keeper, "KILL");
    let done = verb(&home, &["wait", &id]).ended(198);
    assert!(done.err().contains("keeper lost"), "{}", done.err());
    assert_eq!(logs(), format!("{group}\n"));
    eventually(PATIENCE, "its command is ended", || group_members(group).is_empty());
    kill_front(&home, &server);
    assert_eq!(verb(&home, &["wait", &id]).ended(198).out(), "");
    assert_eq!(jobs(&home)[0]["state"], "lost");
}

#[test]
fn many_watch_a_command_and_the_last_one_types() {
    let home = Home::with_key();
    let server = server(&home);
    let line = "echo hello; echo warned >&2; while read -r line; do echo got $line; done; echo end; exit 6";
    let id = detach(&home, &["--open-stdin"], line);
    let attach = |options: &[&str]| {
        let mut command = home.remora();
        command.args(["attach"]).args(options).args([&target(&home), &id]);
        Client::start(command)
    };
    let mut watchers: Vec<Client> = (0..3).map(|_| attach(&["--read-only"])).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.line(), "hello");
    }
    let typed = |options: &[&str], input: &str| {
        let mut command = home.remora();
        command.args(["attach"]).args(options).args([&target(&home), &id]);
        command.stdin(std::process::Stdio::piped());
        let mut client = Client::start(command);
        std::io::Write::write_all(&mut client.child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        client
    };
    // The end of what one types is not the end of what can be typed.
    let mut first = typed(&["--live"], "one\n");
    assert_eq!(first.line(), "got one");
    signal(first.pid(), "QUIT");
    let done = first.finish().ended(0);
    assert!(done.err().contains("the command goes on"), "{}", done.err());
    // What went before is told from any offset.
    let mut second = typed(&["--since-offset", "6"], "two\n");
    assert_eq!(second.line(), "got one");
    assert_eq!(second.line(), "got two");
    for watcher in &mut watchers {
        assert_eq!((watcher.line(), watcher.line()), ("got one".to_owned(), "got two".to_owned()));
    }
    // The server is started anew meanwhile: all come back, and go on where they were.
    kill_front(&home, &server);
    let third = typed(&["--end-input", "--live"], "three\n");
    let done = third.finish().ended(6);
    assert_eq!(done.out(), "got three\nend\n");
    for client in watchers.into_iter().chain([second]) {
        let done = client.finish().ended(6);
        assert_eq!(done.out(), "got three\nend\n");
        assert!(done.err().starts_with("warned\n"), "{}", done.err());
    }
    let log = verb(&home, &["logs", &id]).ended(0);
    assert_eq!(log.out(), "hello\ngot one\ngot two\ngot three\nend\n");
}

#[test]
fn a_flood_is_watched_whole_by_a_slow_watcher_and_a_fast_one() {
    let home = Home::with_key();
    let server = server(&home);
    let id = detach(&home, &[], "sleep 0.3; head -c 20000000 /dev/zero | tr '\\0' x");
    let attach = || {
        let mut command = home.remora();
        command.args(["attach", "--read-only", &target(&home), &id]);
        Client::start(command)
    };
    // One that reads nothing until the other has all.
    let (slow, fast) = (attach(), attach());
    assert_eq!(fast.finish().ended(0).stdout.len(), 20_000_000);
    kill_front(&home, &server);
    let done = slow.finish().ended(0);
    assert!(done.stdout.len() == 20_000_000 && done.stdout.iter().all(|byte| *byte == b'x'));
}

#[test]
fn those_that_are_over_are_kept_for_a_number_and_a_time() {
    let home = Home::with_key();
    let config = home.write("config.toml", "max_detached_kept = 2\n");
    let first = server_with(&home, &["--stop-jobs", "--config", config.to_str().unwrap()]);
    let runs = detach(&home, &[], "sleep 1000");
    let ids: Vec<String> = (0..4)
        .map(|_| {
            let id = detach(&home, &[], "echo out");
            verb(&home, &["wait", &id]).ended(0);
            id
        })
        .collect();
    // It is looked at as a server starts, and now and then.
    kill_front(&home, &first);
    eventually(PATIENCE, "the oldest are gone", || jobs(&home).len() == 3);
    let mut left: Vec<String> =
        jobs(&home).iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    left.sort();
    let mut expected = vec![runs, ids[2].clone(), ids[3].clone()];
    expected.sort();
    assert_eq!(left, expected);
    home.write("config.toml", "detached_kept_seconds = 0\n");
    kill_front(&home, &first);
    eventually(PATIENCE, "all that are over are gone", || jobs(&home).len() == 1);
    assert_eq!(folders(&home).len(), 1);
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_refuses_new_ones_and_harms_none_that_runs() {
    let home = Home::with_key();
    let state = home.path("state");
    fs::create_dir(&state).unwrap();
    let mount = |command: &mut Command| assert!(command.status().unwrap().success());
    mount(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]).arg(&state));
    let unmounted = Unmounted(state.clone());
    let server = server(&home);
    let id = detach(&home, &[], "head -c 20000000 /dev/zero | tr '\\0' x; echo end");
    let length = || jobs(&home)[0]["stdout"]["end"].as_u64().unwrap();
    let mut last = 0;
    eventually(PATIENCE, "the disk is full", || {
        let now = length();
        let is_full = now > 10_000_000 && now == std::mem::replace(&mut last, now);
        std::thread::sleep(std::time::Duration::from_millis(100));
        is_full
    });
    let done = run(home.exec(["--detach", &target(&home), "true"]));
    done.complained(194, "remora: unix:", "no room to keep a detached command's output");
    // Who comes to make room finds some, and what is going on.
    assert_eq!(run(home.exec([&target(&home), "echo here"])).ended(0).out(), "here\n");
    let job = jobs(&home).remove(0);
    assert_eq!((&job["state"], &job["held_back"]), (&"running".into(), &"disk".into()));
    assert!(verb(&home, &["jobs"]).ended(0).out().contains("disk full"));
    mount(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&state));
    let done = verb(&home, &["wait", &id]).ended(0);
    assert!(done.err().contains("disk was full"), "{}", done.err());
    let done = verb(&home, &["logs", &id]).ended(0);
    assert!(done.stdout.len() == 20_000_004 && done.stdout.ends_with(b"xend\n"), "{}", done.stdout.len());
    drop(server);
    drop(unmounted);
}

#[test]
fn what_a_full_disk_holds_back_is_stopped_all_the_same_and_what_is_lost_is_told() {
    for on_full in ["wait", "kill", "drop-oldest"] {
        let home = Home::with_key();
        let state = home.path("state");
        fs::create_dir(&state).unwrap();
        let mount = |command: &mut Command| assert!(command.status().unwrap().success());
        mount(Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs"]).arg(&state));
        let unmounted = Unmounted(state.clone());
        let server = server(&home);
        // One that goes on printing, and one that has come to its end.
        let endless = detach(&home, &["--on-full", on_full], "yes | head -c 100000000; echo fin >&2");
        eventually(PATIENCE, "the disk is full", || jobs(&home)[0]["held_back"] == "disk");
        verb(&home, &["stop", &endless]).ended(0);
        let done = verb(&home, &["wait", "--json", &endless]);
        let object: Value = serde_json::from_str(&done.out()).unwrap();
        let (printed, lost) = (&object["stdout"]["length"], object["spool"]["stdout_lost"].as_u64().unwrap());
        assert!(lost > 0, "{object}");
        let done = verb(&home, &["logs", "--stream", "stdout", &endless]).ended(0);
        assert!(done.err().contains(&format!("the last {lost} bytes of stdout")), "{}", done.err());
        let kept = done.stdout.len() as u64;
        assert_eq!(Some(kept + lost), printed.as_u64(), "{on_full}");
        let done = verb(&home, &["wait", &endless]);
        assert!(done.err().contains(&format!("the last {lost} bytes of stdout")), "{}", done.err());
        // What the receipt tells of and the host doesn't keep is in doubt to who looks on.
        verb(&home, &["attach", "-r", &endless]).complained(
            198,
            "remora: unix:",
            &format!("bytes of stdout, and not the {lost} behind them"),
        );
        let folder = crate::bench::text(&home.path("kept")).to_owned();
        verb(&home, &["logs", "--keep", &folder, &endless]).complained(
            196,
            "remora: unix:",
            "it isn't whole",
        );
        verb(&home, &["forget", &endless]).ended(0);
        drop(server);
        drop(unmounted);
    }
}

#[test]
fn what_is_held_back_by_its_limit_says_so_to_who_waits() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &["--spool-limit", "64k"], "head -c 300000 /dev/zero | tr '\\0' x");
    eventually(PATIENCE, "it is held back", || jobs(&home)[0]["held_back"] == "limit");
    assert!(verb(&home, &["jobs"]).ended(0).out().contains("held back"));
    let mut command = home.remora();
    command.args(["wait", &target(&home), &id]);
    let waits = Client::start(command);
    let mut command = home.remora();
    command.args(["attach", "-r", &target(&home), &id]);
    let looks = Client::start(command);
    verb(&home, &["stop", &id]).ended(0);
    for client in [waits, looks] {
        let done = client.finish();
        assert!(done.err().contains("the command is held back: 65536 bytes"), "{}", done.err());
    }
}

#[test]
fn a_name_is_nobody_elses_id() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &["--name", "victim"], "sleep 1000");
    let other = detach(&home, &["--name", &id], "sleep 1000");
    let short = detach(&home, &["--name", &id[..8]], "sleep 1000");
    // A whole id is that job's.
    assert!(verb(&home, &["stop", &id]).ended(0).err().contains(&id[..12]));
    assert_eq!(jobs(&home).iter().filter(|job| job["state"] == "running").count(), 2);
    verb(&home, &["stop", &id[..8]]).complained(196, "remora: unix:", "several jobs");
    for id in [other, short] {
        verb(&home, &["stop", &id]).ended(0);
    }
}

#[test]
fn who_is_overtaken_in_an_attach_is_told_and_can_leave() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &["-tt"], "echo ready; cat");
    let screen = crate::screen::Screen::open(&home, 40);
    let attach = format!("clear; {} attach {} {id}; echo left with $?", crate::bench::REMORA, target(&home));
    screen.enter(&attach);
    screen.shows("ready");
    screen.type_text("mine");
    screen.shows("mine");
    let mut other = Client::start({
        let mut command = home.remora();
        command.args(["attach", &target(&home), &id]).stdin(std::process::Stdio::piped());
        command
    });
    // Twice: by the terminal, and by `cat`.
    std::io::Write::write_all(other.child.stdin.as_mut().unwrap(), b" theirs\n").unwrap();
    screen.shows("mine theirs\nmine theirs\n");
    let mark = home.path("mark");
    screen.enter(&format!("touch {}", mark.display()));
    screen.shows("what you type reaches nobody: another attach types now");
    screen.press(&["C-\\"]);
    screen.shows("left with 0");
    // Whoever has nothing to type doesn't take it from who has.
    screen.enter(&attach);
    screen.shows("mine theirs\nmine theirs\n");
    let mut idle = Client::start({
        let mut command = home.remora();
        command.args(["attach", &target(&home), &id]);
        command
    });
    assert!(idle.line().contains("ready"));
    screen.enter("again");
    screen.shows("again\nagain\n");
    // What was typed while nobody heard it is not left for the shell there.
    verb(&home, &["stop", &id]).ended(0);
    screen.shows("left with");
    screen.enter("echo the end");
    screen.shows("the end\n");
    assert!(!mark.exists());
    other.finish();
    idle.finish();
}

/// A file system that is taken away again.
struct Unmounted(std::path::PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_job_that_was_there_before_a_reboot_is_told_as_lost_by_it() {
    let home = Home::with_key();
    let mut first = server_with(&home, &[]);
    let id = detach(&home, &[], "echo $$; sleep 1000");
    let logs = || verb(&home, &["logs", &id]).ended(0).out();
    eventually(PATIENCE, "its number", || logs().ends_with('\n'));
    let group: i32 = logs().trim().parse().unwrap();
    let keeper = children(first.pid()).into_iter().find(|keeper| children(*keeper).contains(&group)).unwrap();
    first.signal("TERM");
    first.wait();
    // All its processes are gone, and the boot is another.
    signal(keeper, "KILL");
    signal(-group, "KILL");
    let folder = folders(&home).remove(0);
    let mut record = fs::read(folder.join("record")).unwrap();
    record[5..21].fill(7);
    fs::write(folder.join("record"), record).unwrap();
    let _second = server(&home);
    let done = verb(&home, &["wait", &id]).ended(198);
    assert!(done.err().contains("lost at reboot"), "{}", done.err());
    assert!(verb(&home, &["jobs"]).ended(0).out().contains("lost at reboot"));
    assert_eq!(logs(), format!("{group}\n"));
    verb(&home, &["forget", &id]).ended(0);
}

#[test]
fn a_terminal_is_attached_to_and_left_by_a_key() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &["-tt"], "echo ready; read x; echo got $x; read y; echo then $y; exit 9");
    let mut attach = home.remora();
    attach.args(["attach", &target(&home), &id]);
    let done = run_on_terminal(&home, &attach, &[("ready", "hello"), ("got hello", "\u{1c}")]).ended(0);
    assert!(done.out().contains("the command goes on"), "{}", done.out());
    assert_eq!(jobs(&home)[0]["state"], "running");
    let done = run_on_terminal(&home, &attach, &[("got hello", "again")]);
    assert!(done.out().contains("then again"), "{}", done.out());
    verb(&home, &["wait", &id]).ended(9);
}

/// The id of the one job that a client is attached to, once it has printed so much.
pub(crate) fn attached(home: &Home, printed: u64) -> String {
    let mut found = None;
    eventually(PATIENCE, "an attached job", || {
        let list = jobs(home);
        let one = list
            .iter()
            .find(|job| job["state"] == "attached" && job["stdout"]["end"].as_u64() >= Some(printed));
        found = one.map(|job| job["id"].as_str().unwrap().to_owned());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_command_that_runs_is_detached_and_its_client_told() {
    let home = Home::with_key();
    let server = server(&home);
    let go = home.path("go");
    let line = format!(
        "echo warned >&2; seq 1 1000; while [ ! -e {} ]; do sleep 0.02; done; seq 1001 200000; cat; exit 7",
        go.display()
    );
    let mut command = home.exec([&target(&home), &line]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    let stdin = client.child.stdin.take();
    assert_eq!(client.line(), "1");
    let id = attached(&home, 3893);
    let list = jobs(&home);
    assert_eq!((list.len(), &list[0]["command"]["line"]), (1, &Value::String(line)));
    let done = verb(&home, &["detach", &id[..10], "--name", "late"]).ended(0);
    assert_eq!((done.out(), done.err()), (format!("{id}\n"), String::new()));
    // Asked again, as after an answer that was lost.
    assert_eq!(verb(&home, &["detach", &id]).ended(0).out(), format!("{id}\n"));
    let done = client.finish().ended(198);
    let way = format!("to come back: remora attach {} {id}\n", target(&home));
    assert!(done.err().starts_with("warned\nremora: unix:") && done.err().ends_with(&way), "{}", done.err());
    assert_eq!(done.err().lines().count(), 2, "{}", done.err());
    let seen = format!("1\n{}", done.out());
    let job = jobs(&home).remove(0);
    assert_eq!((&job["state"], &job["name"]), (&"running".into(), &"late".into()));
    // What the client had taken is gone, and said to be so.
    let start = job["stdout"]["start"].as_u64().unwrap() as usize;
    assert!(start <= seen.len(), "{start} of {}", seen.len());
    kill_front(&home, &server);
    fs::write(&go, "").unwrap();
    // Its input has ended, though its client's hasn't: `cat` is over.
    verb(&home, &["wait", "late"]).ended(7);
    drop(stdin);
    let whole: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let rest = verb(&home, &["attach", "late"]).ended(7);
    assert!(whole.starts_with(&seen) && rest.out() == whole[start..], "{} from {start}", rest.stdout.len());
    let object: Value = serde_json::from_str(&verb(&home, &["wait", "--json", &id]).ended(7).out()).unwrap();
    assert_eq!(object["stdout"]["length"], whole.len());
    assert_eq!(object["stdout"]["blake3"], blake3::hash(whole.as_bytes()).to_hex().as_str());
}

#[test]
fn what_a_client_that_reads_nothing_has_not_taken_is_kept_whole() {
    let home = Home::with_key();
    let _server = server(&home);
    let mut command = home.exec([&target(&home), "seq 1 1000000"]);
    command.stdin(std::process::Stdio::null());
    let mut client = Client::start(command);
    let mut seen = vec![0; 1_500_000];
    std::io::Read::read_exact(client.child.stdout.as_mut().unwrap(), &mut seen).unwrap();
    // From here on its pipe fills, and so do all windows.
    let id = attached(&home, 1_500_000);
    verb(&home, &["detach", &id]).ended(0);
    verb(&home, &["wait", &id]).ended(0);
    let whole: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    seen.extend(client.finish().ended(198).stdout);
    let seen = String::from_utf8(seen).unwrap();
    let start = jobs(&home)[0]["stdout"]["start"].as_u64().unwrap() as usize;
    assert!(whole.starts_with(&seen) && start > 0 && start <= seen.len(), "{start}, {}", seen.len());
    assert!(verb(&home, &["logs", &id]).ended(0).out() == whole[start..]);
    let from = seen.len().to_string();
    let rest = verb(&home, &["logs", "--stream", "stdout", "--since-offset", &from, &id]).ended(0);
    assert!(rest.out() == whole[seen.len()..]);
}

#[test]
fn a_client_that_was_away_is_told_as_it_comes_back() {
    let home = Home::with_key();
    let server = server(&home);
    let client = Client::start(home.exec([&target(&home), "echo ready; sleep 1000"]));
    let id = attached(&home, 6);
    signal(client.pid(), "STOP");
    // Taken up by the next front, from its keeper's note.
    kill_front(&home, &server);
    assert_eq!(jobs(&home)[0]["command"]["line"], "echo ready; sleep 1000");
    verb(&home, &["detach", &id]).ended(0);
    signal(client.pid(), "CONT");
    let done = client.finish().ended(198);
    assert!(done.err().contains("the command is detached, and goes on"), "{}", done.err());
    assert_eq!(done.out(), "ready\n");
    assert_eq!(jobs(&home)[0]["state"], "running");
    verb(&home, &["stop", &id]).ended(0);
    verb(&home, &["detach", "0123456789"]).complained(196, "remora: unix:", "no job of yours");
}

#[test]
fn a_detached_terminal_can_be_typed_into_again() {
    let home = Home::with_key();
    let _server = server(&home);
    let go = home.path("go");
    let line = format!(
        "echo ready; while [ ! -e {} ]; do sleep 0.02; done; echo again; read x; echo got $x; exit 9",
        go.display()
    );
    let mut command = home.exec(["-tt", &target(&home), &line]);
    command.stdin(std::process::Stdio::piped());
    let client = Client::start(command);
    let id = attached(&home, 6);
    verb(&home, &["detach", &id]).ended(0);
    // Its client's end is not the end of its terminal.
    client.finish().ended(198);
    fs::write(&go, "").unwrap();
    let mut attach = home.remora();
    attach.args(["attach", &target(&home), &id]);
    let done = run_on_terminal(&home, &attach, &[("again", "hello")]);
    assert!(done.out().contains("got hello"), "{}", done.out());
    verb(&home, &["wait", &id]).ended(9);
}

#[test]
fn a_flood_is_detached_at_any_moment_without_a_gap() {
    let home = Home::with_key();
    let _server = server(&home);
    let whole: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    for printed in [0, 1, 400_000, 1_000_000, 2_500_000] {
        let line = "sleep 0.2; seq 1 500000; sleep 0.05; seq 500001 1000000; sleep 0.5";
        let client = Client::start(home.exec([&target(&home), line]));
        let finished = std::thread::spawn(move || client.finish());
        let id = attached(&home, printed);
        verb(&home, &["detach", &id]).ended(0);
        let seen = finished.join().unwrap().ended(198).out();
        verb(&home, &["wait", &id]).ended(0);
        let from = seen.len().to_string();
        let rest = verb(&home, &["logs", "--stream", "stdout", "--since-offset", &from, &id]).ended(0);
        assert!(format!("{seen}{}", rest.out()) == whole, "detached at {printed}, seen {from}");
    }
}

#[test]
fn what_can_not_be_detached_goes_on() {
    let home = Home::with_key();
    let _server = server(&home);
    detach(&home, &["--name", "build"], "sleep 1000");
    let mut command = home.exec([&target(&home), "echo ready; read x; exit $x"]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    assert_eq!(client.line(), "ready");
    let id = attached(&home, 6);
    verb(&home, &["detach", &id, "--name", "build"]).complained(
        196,
        "remora: unix:",
        "a job named build runs already",
    );
    std::io::Write::write_all(&mut client.child.stdin.take().unwrap(), b"5\n").unwrap();
    client.finish().ended(5);
}
