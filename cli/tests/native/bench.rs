//! A home of its own with keys, a server on a port that the kernel chose, and clients of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use remora_testkit::{children, eventually, is_alive};
use tempfile::TempDir;

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const REMORA: &str = env!("CARGO_BIN_EXE_remora");

/// A home directory that nothing outside of this test knows.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty one. Its parents are open to nobody else's writing, as StrictModes wants.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("home").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::DirBuilder::new().mode(0o700).create(folder.path().join(".ssh")).unwrap();
        Home { folder }
    }

    /// One whose user has an Ed25519 key, which `authorized_keys` accepts.
    pub(crate) fn with_key() -> Self {
        let home = Home::empty();
        home.make_key(".ssh/id_ed25519", "ed25519", "");
        home.authorize(&[".ssh/id_ed25519"]);
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Makes a key pair with the real ssh-keygen and gives the path of its private half.
    pub(crate) fn make_key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        // Few rounds: the passphrase guards nothing here.
        command.args(["-q", "-a", "1", "-t", kind, "-N", passphrase, "-C", "test", "-f"]).arg(&path);
        if kind == "rsa" {
            command.args(["-b", "2048"]);
        }
        let made = command.stdin(Stdio::null()).output().expect("ssh-keygen (openssh-client) is needed");
        assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
        path
    }

    /// The public half, as in its file, without the comment.
    pub(crate) fn public(&self, name: &str) -> String {
        let text = self.text(&format!("{name}.pub"));
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// As `ssh-keygen -l` prints it.
    pub(crate) fn fingerprint(&self, name: &str) -> String {
        let told =
            Command::new("ssh-keygen").arg("-lf").arg(self.path(&format!("{name}.pub"))).output().unwrap();
        String::from_utf8(told.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    /// Makes these keys, and no others, the ones that `authorized_keys` accepts.
    pub(crate) fn authorize(&self, names: &[&str]) {
        let lines: String = names.iter().map(|name| self.public(name) + "\n").collect();
        self.write("authorized_keys", &lines);
    }

    /// A client's command line, with nothing of the tests' own environment but `PATH`.
    pub(crate) fn remora(&self) -> Command {
        self.clean(Command::new(REMORA))
    }

    /// Another program that is given these arguments, then remora's path.
    pub(crate) fn remora_under(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(REMORA);
        self.clean(command)
    }

    fn clean(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .envs(std::env::var_os("PATH").map(|p| ("PATH", p)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `remora exec` with what else is to follow.
    pub(crate) fn exec<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.remora();
        command.arg("exec").args(arguments);
        command
    }
}

/// The account that runs the tests, whom the servers serve.
pub(crate) fn own_name() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

/// A `remora serve` of this test.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) port: u16,
    killed: bool,
}

impl Server {
    /// Starts one on a port of the kernel's choice, with an Ed25519 host key that the home's `known_hosts` names.
    pub(crate) fn start(home: &Home) -> Self {
        if !home.path("host_key").exists() {
            home.make_key("host_key", "ed25519", "");
        }
        let server = Server::start_with(home, &["host_key"], &[]);
        home.write(".ssh/known_hosts", &server.known_line(home, "host_key"));
        server
    }

    /// Starts one with these host keys and further flags. Nobody knows its keys yet.
    pub(crate) fn start_with(home: &Home, host_keys: &[&str], flags: &[&str]) -> Self {
        let mut command = Server::command(home, host_keys);
        command.args(["--listen", "native://127.0.0.1:0"]).args(flags);
        Server::spawn(home, command)
    }

    /// Starts one whose commands run on when it ends, with the home's host key, on a port or on one of the kernel's choice (0).
    pub(crate) fn start_to_leave(home: &Home, port: u16) -> Self {
        let mut command = Server::command(home, &["host_key"]);
        let arguments: Vec<_> =
            command.get_args().filter(|one| *one != "--stop-jobs").map(OsStr::to_owned).collect();
        command = home.remora();
        command.args(arguments).args(["--listen", &format!("native://127.0.0.1:{port}")]);
        Server::spawn(home, command)
    }

    /// The command line of a server that still has to be told where to listen.
    pub(crate) fn command(home: &Home, host_keys: &[&str]) -> Command {
        Server::command_in(home, host_keys, "state")
    }

    /// As [`Server::command`], with a state directory of this name: servers at the same time have one each.
    pub(crate) fn command_in(home: &Home, host_keys: &[&str], state: &str) -> Command {
        let mut command = home.remora();
        command.arg("serve").arg("--authorized-keys").arg(home.path("authorized_keys"));
        command.arg("--state-dir").arg(home.path(state)).arg("--stop-jobs");
        for key in host_keys {
            command.arg("--host-key").arg(home.path(key));
        }
        command
    }

    /// Starts it and waits until it listens everywhere it was told to.
    pub(crate) fn spawn(home: &Home, mut command: Command) -> Self {
        let log = home.path("server.log");
        let file = fs::File::create(&log).unwrap();
        let wanted = command.get_args().filter(|argument| *argument == "--listen").count().max(1);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let mut server = Server { child, log, port: 0, killed: false };
        eventually(PATIENCE, "the server listens", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                server.killed = true;
                panic!("the server ended with {status}: {}", server.log());
            }
            server.listening().len() >= wanted
        });
        let native = server.listening().into_iter().find_map(|url| {
            url.strip_prefix("native://").and_then(|rest| rest.rsplit_once(':')?.1.parse().ok())
        });
        server.port = native.unwrap_or(0);
        server
    }

    /// The URLs it said it listens on, in order.
    pub(crate) fn listening(&self) -> Vec<String> {
        let log = self.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter_map(|line| line.strip_prefix("remora: listening on "))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(PATIENCE, &format!("{text:?} in the server's log"), || self.log().contains(text));
    }

    /// What `known_hosts` must hold for one of its keys.
    pub(crate) fn known_line(&self, home: &Home, key: &str) -> String {
        format!("[127.0.0.1]:{} {}\n", self.port, home.public(key))
    }

    pub(crate) fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// The process that serves, which the first one has started.
    pub(crate) fn front(&self) -> i32 {
        let is_front = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("--warden-link=") && is_alive(*pid)
        };
        let mut found = None;
        eventually(PATIENCE, "a front", || {
            found = children(self.pid()).into_iter().find(is_front);
            found.is_some()
        });
        found.unwrap()
    }

    /// Ends it as nothing should be ended, the front too. Its commands run on.
    pub(crate) fn kill(&mut self) {
        let front = self.front();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.killed = true;
        eventually(PATIENCE, "the front ends", || !is_alive(front));
    }

    /// As [`Server::kill`], and the front has no time to see it.
    pub(crate) fn kill_at_once(&mut self) {
        let front = self.front();
        self.signal("STOP");
        signal(front, "KILL");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.killed = true;
    }

    /// Waits for its end, after a signal.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.killed = true;
        wait(&mut self.child, "the server ends")
    }
}

impl Drop for Server {
    /// Each server ends in good order, by itself or by SIGTERM.
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "server's log:\n{}", self.log());
            // Twice: what runs is ended now, and nothing is left behind.
            for _ in 0..2 {
                self.signal("TERM");
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = self.child.wait();
            return;
        }
        self.signal("TERM");
        let status = wait(&mut self.child, "the server ends");
        assert_eq!(status.code(), Some(0), "the server's end: {}", self.log());
    }
}

/// Sends a signal to a process, or to a group by its negative number, by kill(1): this crate has no unsafe code, and the tests no need to be fast.
pub(crate) fn signal(pid: i32, name: &str) {
    let status =
        Command::new("kill").arg(format!("-{name}")).arg("--").arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let mut status = None;
    eventually(PATIENCE, what, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// What a client did.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit status; above 1000 the signal that killed it.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Done {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// It ended with this status.
    #[track_caller]
    pub(crate) fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout {:?}, stderr {:?}", shortened(&self.out()), self.err());
        self
    }

    /// It failed with one line, and perhaps a hint.
    #[track_caller]
    pub(crate) fn complained(self, status: i32, start: &str, within: &str) -> Self {
        let done = self.ended(status);
        let text = done.err();
        let lines: Vec<&str> = text.lines().collect();
        assert!(matches!(lines.len(), 1 | 2), "{text:?}");
        assert!(lines[0].starts_with(start), "{text:?} should start with {start:?}");
        assert!(text.contains(within), "{text:?} should contain {within:?}");
        assert!(lines.get(1).is_none_or(|line| line.starts_with("hint: ")), "{text:?}");
        done
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(500).collect()
}

/// A client that runs.
pub(crate) struct Client {
    pub(crate) child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
}

impl Client {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let err = child.stderr.take().map(drain);
        Client { child, out: None, err }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The next line of its stdout, without the line's end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let out = self.child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// As [`Client::line`], for a number.
    pub(crate) fn number(&mut self) -> i32 {
        let line = self.line();
        line.parse().unwrap_or_else(|_| panic!("{line:?} is no number"))
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end and takes the rest of its output.
    pub(crate) fn finish(mut self) -> Done {
        self.out = self.child.stdout.take().map(drain);
        let mut status = None;
        let child = &mut self.child;
        let end = std::time::Instant::now() + PATIENCE;
        while status.is_none() && std::time::Instant::now() < end {
            status = child.try_wait().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        if status.is_none() {
            let _ = child.kill();
        }
        let collect =
            |thread: Option<JoinHandle<Vec<u8>>>| thread.map(|t| t.join().unwrap()).unwrap_or_default();
        let (stdout, stderr) = (collect(self.out.take()), collect(self.err.take()));
        let Some(status) = status else {
            panic!("it hangs; stderr {:?}", String::from_utf8_lossy(&stderr));
        };
        let status = status.code().unwrap_or_else(|| 1000 + status.signal().unwrap());
        Done { status, stdout, stderr }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Done {
    Client::start(command).finish()
}

/// Runs a command to its end, with these bytes on its stdin.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Done {
    command.stdin(Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || {
        // A command that reads no more is no fault of the feeder.
        let _ = stdin.write_all(&input);
    });
    let done = client.finish();
    feed.join().unwrap();
    done
}

/// Runs a command on a terminal of its own, answering each question when it is asked, and gives all that it showed.
pub(crate) fn run_on_terminal(home: &Home, command: &Command, dialogue: &[(&str, &str)]) -> Done {
    const DRIVER: &str = r#"
import json, os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen = b""
def more():
    global seen
    try:
        chunk = os.read(fd, 65536)
    except OSError:
        return False
    seen += chunk
    return bool(chunk)
at = 0
for question, answer in json.loads(sys.argv[1]):
    while question.encode() not in seen[at:]:
        if not more():
            break
    at = len(seen)
    os.write(fd, answer.encode() + b"\n")
while more():
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stdout.buffer.write(seen)
sys.stdout.flush()
sys.exit(status if status >= 0 else 250)
"#;
    let mut python = home.clean(Command::new("python3"));
    python.args(["-c", DRIVER, &serde_json::to_string(dialogue).unwrap()]);
    python.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| python.env(name, value));
    }
    run(python)
}

/// A real ssh-agent.
pub(crate) struct Agent {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Agent {
    pub(crate) fn start(home: &Home) -> Self {
        // A socket's path is short (unix(7)), which a build folder's may not be.
        let socket = home.path("agent");
        let mut command = home.clean(Command::new("ssh-agent"));
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("ssh-agent (openssh-client) is needed");
        eventually(PATIENCE, "the agent listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Agent { child, socket }
    }

    pub(crate) fn add(&self, key: &Path) {
        let added =
            Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        assert!(added.status.success(), "ssh-add: {}", String::from_utf8_lossy(&added.stderr));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
