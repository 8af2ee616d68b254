//! What the machine has no more of: processes, descriptors, room on the disk. A new command is refused, and said to be; those that run
//! are unharmed; and afterwards commands run again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use remora_testkit::{eventually, pattern};

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, text};
use crate::keepers::jobs;

/// Bytes that a command prints at its end: more than fits into any buffer on the way.
const FLOOD: usize = 3 << 20;

fn socket(home: &Home) -> String {
    format!("unix:{}", text(&home.path("socket")))
}

/// A command that has begun, and goes on when it is told to.
struct Runs(Client);

impl Runs {
    fn start(home: &Home) -> Client {
        // Forks nothing itself.
        let line =
            format!("echo first; read x; exec '{}' flood {FLOOD} 0", text(&remora_testkit::odd_child()));
        let mut command = home.exec([socket(home), line]);
        command.stdin(Stdio::piped());
        Client::start(command)
    }

    fn begun(home: &Home) -> Self {
        let mut client = Runs::start(home);
        assert_eq!(client.line(), "first");
        Runs(client)
    }

    #[track_caller]
    fn ends_whole(self) {
        let mut client = self.0;
        client.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let done = client.finish().ended(0);
        assert!(done.stdout == pattern(FLOOD), "{} bytes", done.stdout.len());
    }
}

#[track_caller]
fn refused(done: Done) -> String {
    let done = done.complained(194, "remora: unix:", "");
    assert_eq!(done.out(), "");
    done.err()
}

/// A cgroup whose processes can be limited, and the server in it.
struct Pids(PathBuf);

impl Pids {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_its = |line: &&str| line.rsplit([' ', ',']).any(|word| word == "pids");
        let old = mounts.lines().find(|line| line.contains(" - cgroup ") && is_its(line));
        let mount = old.or_else(|| mounts.lines().find(|line| line.contains(" - cgroup2 ")));
        let root = Path::new(mount.expect("cgroups are needed").split(' ').nth(4).unwrap());
        if old.is_none() {
            fs::write(root.join("cgroup.subtree_control"), "+pids").unwrap();
        }
        let path = root.join(format!("remora-pids-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Pids(path)
    }

    fn limit(&self, most: &str) {
        fs::write(self.0.join("pids.max"), most).unwrap();
    }

    fn server(&self, home: &Home) -> Server {
        let enter = format!("echo 0 > '{}/cgroup.procs'; exec \"$@\"", text(&self.0));
        let inner = Server::command(home, &[]);
        let mut command = Command::new("sh");
        command.args(["-c", &enter, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["--listen", &socket(home)]);
        Server::spawn(home, command)
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        self.limit("max");
        eventually(PATIENCE, "nobody is in the cgroup", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
#[ignore = "needs root and the pids cgroup"]
fn at_the_limit_of_processes_new_commands_are_refused_and_none_is_harmed() {
    let cgroup = Pids::new();
    let home = Home::with_key();
    let server = cgroup.server(&home);
    let running: Vec<Runs> = (0..3).map(|_| Runs::begun(&home)).collect();
    cgroup.limit("1");
    // The first ones have keepers that waited already.
    for _ in 0..8 {
        let said = refused(run(home.exec([&socket(&home), "true"])));
        let words = ["can't start another process", "no room to keep the job"];
        assert!(words.iter().any(|words| said.contains(words)), "{said}");
        assert!(said.contains("Resource temporarily unavailable"), "{said}");
    }
    running.into_iter().for_each(Runs::ends_whole);
    cgroup.limit("max");
    for _ in 0..8 {
        run(home.exec([&socket(&home), "true"])).ended(0);
    }
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
    drop(server);
}

/// More clients than a server with few descriptors can serve.
const CLIENTS: usize = 40;

#[test]
fn without_descriptors_new_commands_are_refused_and_none_is_harmed() {
    let home = Home::with_key();
    let mut command = home.remora_under("prlimit", &["--nofile=64"]);
    command.args(Server::command(&home, &[]).get_args()).args(["--listen", &socket(&home)]);
    let server = Server::spawn(&home, command);
    let front = server.front();
    let mut running: Vec<Runs> = (0..3).map(|_| Runs::begun(&home)).collect();
    let more: Vec<Client> = (0..CLIENTS).map(|_| Runs::start(&home)).collect();
    let mut count = 0;
    for mut client in more {
        if client.line() == "first" {
            running.push(Runs(client));
        } else {
            let said = refused(client.finish());
            let words = ["Too many open files", "the other side closed the connection"];
            assert!(words.iter().any(|words| said.contains(words)), "{said}");
            count += 1;
        }
    }
    assert!(count > 0, "all {} were served", running.len());
    running.into_iter().for_each(Runs::ends_whole);
    for _ in 0..8 {
        run(home.exec([&socket(&home), "true"])).ended(0);
    }
    assert_eq!(server.front(), front);
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

/// A file system that is taken away again.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_refuses_or_runs_whole_and_what_is_not_kept_of_a_session_is_told() {
    let home = Home::with_key();
    let state = home.path("state");
    fs::create_dir(&state).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(&state);
    assert!(mount.status().unwrap().success());
    let unmounted = Unmounted(state.clone());
    let server = Server::start_with(&home, &[], &["--listen", &socket(&home)]);
    let in_session = |line: &str| run(home.exec(["--session", "s", &socket(&home), line]));
    in_session("cd /usr; export A=1").ended(0);
    let running: Vec<Runs> = (0..3).map(|_| Runs::begun(&home)).collect();
    let full = state.join("full");
    let mut file = fs::File::create(&full).unwrap();
    while file.write(&[1]).is_ok() {
        let _ = file.write(&[1; 4096]);
    }
    for number in 0..8 {
        let done = run(home.exec([&socket(&home), &format!("echo {number}; echo {number} >&2; exit 7")]));
        if done.status == 194 {
            let said = refused(done);
            assert!(said.contains("No space left on device"), "{said}");
        } else {
            let done = done.ended(7);
            assert_eq!((done.out(), done.err()), (format!("{number}\n"), format!("{number}\n")));
        }
    }
    assert_eq!(in_session("cd /tmp; export A=2; pwd").ended(0).out(), "/tmp\n");
    server.wait_for_log("a session can't be written: it ends with this server");
    running.into_iter().for_each(Runs::ends_whole);
    fs::remove_file(&full).unwrap();
    for _ in 0..8 {
        run(home.exec([&socket(&home), "true"])).ended(0);
    }
    in_session("cd /var; export A=3").ended(0);
    assert_eq!(in_session("pwd; echo $A").ended(0).out(), "/var\n3\n");
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
    drop(server);
    drop(unmounted);
}
