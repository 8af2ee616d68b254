//! Commands whose processes go far: sessions of their own, parents that are gone, signals that are ignored, chains of which each one
//! forks the next and ends. What remora ends, it ends whole; what a command that ended by itself has left, is let be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use remora_testkit::{children, eventually, is_alive};

use crate::bench::{Client, Home, PATIENCE, Server, run, signal, text};
use crate::keepers::{jobs, keeper_of};

/// In the environment of all that a test's command starts.
const MARK: &str = "REMORA_TEST_STRAY";

/// Leaves strays of all kinds, each of which ignores SIGTERM and SIGHUP, and ends by itself after five minutes.
const SCATTER: &str = r#"
import os, signal, sys, time
chain, folder = int(sys.argv[1]), sys.argv[2]
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
def stay():
    open(f"{folder}/stray.{os.getpid()}", "w").close()
    time.sleep(300)
    os._exit(0)
if os.fork() == 0:
    # In the command's own group.
    stay()
if os.fork() == 0:
    os.setsid()
    stay()
if os.fork() == 0:
    # As daemon(7) has it: nobody's child, and no leader of its session.
    os.setsid()
    if os.fork():
        os._exit(0)
    if os.fork() == 0:
        stay()
    stay()
if chain and os.fork() == 0:
    for _ in range(chain):
        if os.fork():
            os._exit(0)
        os.setsid()
    stay()
"#;

/// How many of them stay, with the one that is the end of the chain.
const STRAYS: usize = 5;

/// A mark of this test's own, and a line that leaves strays that have it, then goes on with `then`.
fn scatter(home: &Home, chain: usize, then: &str) -> (String, String) {
    let script = home.write("scatter.py", SCATTER);
    let mark = home.path("").display().to_string();
    let line = format!(
        "export {MARK}='{mark}'; python3 '{}' {chain} '{mark}' >/dev/null 2>&1 & {then}",
        text(&script)
    );
    (mark, line)
}

/// The living processes that have the mark.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}\0");
    let has_mark = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(wanted.len()).any(|part| part == wanted.as_bytes()) && is_alive(*pid)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_mark).collect()
}

/// Waits for those who stay.
#[track_caller]
fn all_are_there(mark: &str) -> Vec<i32> {
    let mut found = Vec::new();
    eventually(PATIENCE, "the strays are there", || {
        let names = fs::read_dir(mark).unwrap().flatten().map(|entry| entry.file_name());
        let pids = names.filter_map(|name| name.to_str()?.strip_prefix("stray.")?.parse::<i32>().ok());
        found = pids.filter(|pid| is_alive(*pid)).collect();
        found.len() == STRAYS
    });
    found
}

#[track_caller]
fn none_is_left(mark: &str) {
    eventually(PATIENCE, "no stray is left", || marked(mark).is_empty());
}

fn end_strays(mark: &str) {
    eventually(PATIENCE, "no stray is left", || {
        let left = marked(mark);
        for pid in &left {
            // One may have gone by itself meanwhile.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
        left.is_empty()
    });
}

#[test]
fn a_deadline_ends_whoever_has_left_the_group_or_ignores_signals() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "sleep 300");
    let client = Client::start(home.exec(["--timeout", "3s", &server.target(), &line]));
    all_are_there(&mark);
    client.finish().ended(124);
    assert_eq!(marked(&mark), [0; 0], "all of it is gone when that is told");
    run(home.exec([&server.target(), "true"])).ended(0);
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn a_chain_of_processes_that_fork_and_end_is_caught() {
    let home = Home::with_key();
    let server = Server::start(&home);
    // Some seconds' worth, so that the deadline is in the midst of it.
    let (mark, line) = scatter(&home, 20_000, "sleep 300");
    run(home.exec(["--timeout", "1s", &server.target(), &line])).ended(124);
    none_is_left(&mark);
}

#[test]
fn the_command_of_a_client_that_is_gone_is_ended_whole() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "sleep 300");
    let mut client = Client::start(home.exec(["--linger", "1s", &server.target(), &line]));
    all_are_there(&mark);
    client.child.kill().unwrap();
    none_is_left(&mark);
}

#[test]
fn a_command_on_a_terminal_is_ended_whole() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "sleep 300");
    let client = Client::start(home.exec(["-tt", "--timeout", "3s", &server.target(), &line]));
    all_are_there(&mark);
    client.finish().ended(124);
    none_is_left(&mark);
}

#[test]
fn a_killed_keeper_takes_along_whoever_has_left_the_session() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "echo $$; sleep 300");
    let mut client = Client::start(home.exec([&server.target(), &line]));
    let command = client.number();
    all_are_there(&mark);
    signal(keeper_of(&server, command), "KILL");
    client.finish().ended(198);
    none_is_left(&mark);
    eventually(PATIENCE, "its command is gone", || !is_alive(command));
}

#[test]
fn a_stopped_server_ends_all_of_a_command() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "sleep 300");
    let client = Client::start(home.exec(["--no-reconnect", &server.target(), &line]));
    all_are_there(&mark);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    none_is_left(&mark);
    drop(client);
}

#[test]
fn what_a_command_leaves_in_the_background_goes_on_and_so_when_its_keeper_is_killed() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (mark, line) = scatter(&home, 3, "wait; exit 3");
    run(home.exec([&server.target(), &line])).ended(3);
    let left = all_are_there(&mark);
    // Another command, another keeper, whose end is nothing to those.
    let mut client = Client::start(home.exec([&server.target(), "echo $$; exec sleep 300"]));
    let command = client.number();
    signal(keeper_of(&server, command), "KILL");
    client.finish().ended(198);
    eventually(PATIENCE, "the other one is gone", || !is_alive(command));
    let alive = || left.iter().filter(|pid| is_alive(**pid)).count();
    assert_eq!(alive(), STRAYS);
    let attendant = children(server.pid())
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "remora-attends\n")
        .expect("a keeper that attends to them");
    signal(attendant, "KILL");
    eventually(PATIENCE, "it is gone", || !is_alive(attendant));
    run(home.exec([&server.target(), "true"])).ended(0);
    assert_eq!(alive(), STRAYS);
    end_strays(&mark);
    eventually(PATIENCE, "no zombie is left", || {
        children(server.pid()).into_iter().all(|pid| is_alive(pid) || pid == server.pid())
    });
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let line = "for i in 1 2 3 4 5 6 7 8 9 10; do setsid -f true; (true &); done; echo $$; sleep 300";
    let mut client = Client::start(home.exec(["--linger", "1s", &server.target(), line]));
    let command = client.number();
    let keeper = keeper_of(&server, command);
    eventually(PATIENCE, "no zombie is left", || children(keeper) == [command]);
    client.child.kill().unwrap();
}

/// A cgroup that is handed over as systemd does it (`Delegate=`, `DelegateSubgroup=`), and the server in it.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is needed");
        let root = Path::new(mount.split(' ').nth(4).unwrap());
        let path = root.join(format!("remora-test-{}", std::process::id()));
        fs::create_dir_all(path.join("server")).unwrap();
        rustix::fs::setxattr(&path, "trusted.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        Delegated(path)
    }

    fn server(&self, home: &Home) -> Server {
        if !home.path("host_key").exists() {
            home.make_key("host_key", "ed25519", "");
        }
        let enter = format!("echo 0 > '{}/server/cgroup.procs'; exec \"$@\"", text(&self.0));
        let inner = Server::command(home, &["host_key"]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &enter, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["--listen", "native://127.0.0.1:0"]);
        let server = Server::spawn(home, command);
        home.write(".ssh/known_hosts", &server.known_line(home, "host_key"));
        server
    }

    fn enclosures(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("remora-")).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for name in self.enclosures() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        let _ = fs::remove_dir(self.0.join("server"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs root and cgroup v2"]
fn where_a_cgroup_is_delegated_all_is_ended_even_when_warden_and_keeper_are_killed() {
    let cgroup = Delegated::new();
    let home = Home::with_key();
    let mut first = cgroup.server(&home);
    let (mark, line) = scatter(&home, 20_000, "sleep 300");
    run(home.exec(["--timeout", "1s", &first.target(), &line])).ended(124);
    assert_eq!(marked(&mark), [0; 0], "all of it is gone when that is told");

    let (mark, line) = scatter(&home, 3, "echo $$; sleep 300");
    let mut client = Client::start(home.exec(["--no-reconnect", &first.target(), &line]));
    let command = client.number();
    all_are_there(&mark);
    let keeper = keeper_of(&first, command);
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let its = |pid| of(pid).lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).unwrap();
    assert!(marked(&mark).iter().all(|pid| its(*pid) == its(keeper)));
    assert!(its(keeper).contains(&format!("/remora-{keeper}-")), "{}", its(keeper));
    first.kill();
    client.finish().ended(198);
    // Its children are init's from now on, and nobody's descendants.
    signal(keeper, "KILL");
    let second = cgroup.server(&home);
    none_is_left(&mark);
    drop(second);
    eventually(PATIENCE, "no cgroup is left", || {
        // The keepers that waited end with the server, and whoever comes next sweeps.
        cgroup.enclosures().iter().all(|name| fs::remove_dir(cgroup.0.join(name)).is_ok())
    });
}
