//! Round trips are the budget: how many a command costs, counted and timed on a link that delays every packet.
//!
//! Network namespaces need root. Where not even root may make one, as in many containers, the tests say so and test nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remora_client::{HostTrust, Options, Request, Signer, UserKey, connect};
use remora_identity::KeyFile;
use remora_testkit::eventually;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bench::{Home, PATIENCE, Server, own_name, run, run_with};

/// There and back. Far longer than what the processes at both ends take, so that a busy machine adds no round trip.
const ROUND_TRIP: Duration = Duration::from_millis(400);
const SERVER: &str = "10.99.0.2";

/// A network namespace, which lasts as long as the process in it.
struct Network {
    keeper: Child,
}

impl Network {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec cat >&2"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Network { keeper }
    }

    /// Moves this thread there, and with it whatever it starts from now on.
    fn enter(&self) {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.id())).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// A segment that opens, closes or carries something, as the client's end sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    by_client: bool,
    payload: usize,
    flags: String,
}

/// Two networks with a slow link between them, and what passed on it.
struct Link {
    client: Network,
    server: Network,
    forwarder: Child,
    /// Its end is the forwarder's.
    _stdin: Option<ChildStdin>,
    passed: Arc<Mutex<Vec<Segment>>>,
}

impl Link {
    fn new() -> Self {
        let (client, server) = (Network::new(), Network::new());
        // In a network of its own while it makes the devices, so that their names are free.
        let mut command = Command::new("unshare");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/slow_link.py");
        command.args(["--net", "python3", script, &(ROUND_TRIP / 2).as_millis().to_string()]);
        command.args([client.keeper.id().to_string(), server.keeper.id().to_string()]);
        let mut forwarder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(forwarder.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().expect("the link is made").unwrap(), "ready");
        let passed = Arc::new(Mutex::new(Vec::new()));
        let log = passed.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                log.lock().unwrap().push(Segment {
                    by_client: words[0] == "client",
                    payload: words[1].parse().unwrap(),
                    flags: words[2].to_owned(),
                });
            }
        });
        let stdin = forwarder.stdin.take();
        Link { client, server, forwarder, _stdin: stdin, passed }
    }

    /// How often the client said something and was answered, up to its goodbye.
    fn round_trips(&self) -> usize {
        eventually(PATIENCE, "the client's goodbye has passed", || {
            self.passed.lock().unwrap().iter().any(|s| s.by_client && s.flags.contains('F'))
        });
        let passed = self.passed.lock().unwrap();
        let until = passed.iter().position(|s| s.by_client && s.flags.contains('F')).unwrap();
        passed[..until].windows(2).filter(|two| two[0].by_client && !two[1].by_client).count()
    }

    fn log(&self) -> String {
        format!("{:#?}", self.passed.lock().unwrap())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.forwarder.kill();
        let _ = self.forwarder.wait();
    }
}

/// A server at the far end, whose key the home knows; this thread is at the near end then.
fn far_away(home: &Home) -> (Link, Server) {
    let link = Link::new();
    home.make_key("host_key", "ed25519", "");
    link.server.enter();
    let mut command = Server::command(home, &["host_key"]);
    command.args(["--listen", &format!("native://{SERVER}:0")]);
    let server = Server::spawn(home, command);
    home.write(".ssh/known_hosts", &format!("[{SERVER}]:{} {}\n", server.port, home.public("host_key")));
    link.client.enter();
    (link, server)
}

/// So many round trips, counted, and as long as they take on the clock.
fn costs(round_trips: u32, link: &Link, elapsed: Duration) {
    assert_eq!(link.round_trips(), round_trips as usize, "{}", link.log());
    let (least, most) = (ROUND_TRIP * round_trips, ROUND_TRIP * (round_trips + 1));
    assert!(elapsed >= least && elapsed < most, "{elapsed:?}: {}", link.log());
}

#[test]
#[ignore = "needs root"]
fn a_cold_command_costs_three_round_trips() {
    let home = Home::with_key();
    let (link, server) = far_away(&home);
    let port = server.port.to_string();
    let start = Instant::now();
    run(home.exec(["-p", &port, SERVER, "true"])).ended(0);
    costs(3, &link, start.elapsed());
}

#[test]
#[ignore = "needs root"]
fn input_travels_in_the_same_flight() {
    let home = Home::with_key();
    let (link, server) = far_away(&home);
    let port = server.port.to_string();
    // What TCP sends before the first acknowledgement is ten segments (RFC 6928), most of which are left for the input.
    let input = vec![b'x'; 8000];
    let start = Instant::now();
    let done = run_with(home.exec(["-p", &port, SERVER, "wc -c"]), &input).ended(0);
    costs(3, &link, start.elapsed());
    assert_eq!(done.out(), "8000\n");
}

#[test]
#[ignore = "needs root"]
fn asking_which_key_will_do_costs_one_more() {
    let home = Home::with_key();
    home.make_key(".ssh/id_ecdsa", "ecdsa", "");
    let (link, server) = far_away(&home);
    let port = server.port.to_string();
    let start = Instant::now();
    run(home.exec(["-p", &port, SERVER, "true"])).ended(0);
    costs(4, &link, start.elapsed());
}

#[test]
#[ignore = "needs root"]
fn a_command_on_an_open_connection_costs_one() {
    let home = Home::with_key();
    let (link, server) = far_away(&home);
    let file = KeyFile::parse(&std::fs::read(home.path(".ssh/id_ed25519")).unwrap()).unwrap();
    let public = file.public.clone();
    let signer = Signer::Key(file.into_plain().unwrap());
    let options = Options {
        user: own_name(),
        trust: HostTrust { accept_new: true, ..HostTrust::default() },
        keys: vec![UserKey { public, signer, source: "test".to_owned() }],
        sure: true,
        lasting: remora_client::Lasting::default(),
        connect_timeout: PATIENCE,
        observer: None,
        tap: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opened = connect(SERVER, server.port, options).await.unwrap();
        let one = async |id: u8| {
            let job = opened.connection.start([id; 16], Request::line("true")).unwrap();
            job.wait().await.unwrap();
        };
        one(1).await;
        let start = Instant::now();
        one(2).await;
        let elapsed = start.elapsed();
        assert!(elapsed >= ROUND_TRIP && elapsed < 2 * ROUND_TRIP, "{elapsed:?}: {}", link.log());
    });
}
