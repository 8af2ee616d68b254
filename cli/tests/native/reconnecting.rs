//! Connections that are lost, and jobs that are not.
//!
//! `REMORA_SEED` replays a run.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use remora_testkit::{Fault, FaultyProxy, eventually, group_members, pattern};

use crate::bench::{Client, Home, PATIENCE, REMORA, Server, run, run_with, signal, text};
use crate::screen::{LOCAL, Screen};

/// A client that died of SIGINT itself, which a shell shows as 130.
const INTERRUPTED: i32 = 1002;
/// A stall, longer than the heartbeat of these tests allows.
const STALL: Duration = Duration::from_millis(1500);
/// Has losses noticed soon.
const BEAT: [&str; 2] = ["--heartbeat", "300ms"];

pub(crate) fn seed() -> u64 {
    let given = std::env::var("REMORA_SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(clock.as_nanos() as u64);
    let _ = writeln!(std::io::stderr(), "REMORA_SEED={seed}");
    seed
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The home knows the server's key as the proxy's, too.
fn know(home: &Home, proxy: &FaultyProxy) -> String {
    let port = proxy.address().port();
    let line = format!("[127.0.0.1]:{port} {}\n", home.public("host_key"));
    home.write(".ssh/known_hosts", &(home.text(".ssh/known_hosts") + &line));
    format!("127.0.0.1:{port}")
}

fn behind(home: &Home, server: &Server, faults: Vec<(u64, Fault)>) -> (FaultyProxy, String) {
    let proxy = FaultyProxy::with(address(server.port), faults).unwrap();
    let target = know(home, &proxy);
    (proxy, target)
}

/// A port that refuses.
fn nowhere() -> SocketAddr {
    TcpListener::bind(address(0)).unwrap().local_addr().unwrap()
}

/// The jobs on a host.
fn jobs(home: &Home, target: &str) -> Vec<serde_json::Value> {
    let mut command = home.remora();
    command.args(["jobs", "--json", target]);
    let list: serde_json::Value = serde_json::from_str(&run(command).ended(0).out()).unwrap();
    list["jobs"].as_array().unwrap().clone()
}

#[test]
fn sixty_four_mebibytes_pass_both_ways_over_a_network_that_fails_forty_times() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let bytes = pattern(64 << 20);
    let proxy = FaultyProxy::new(address(server.port), seed(), 40, 120 << 20, STALL).unwrap();
    let target = know(&home, &proxy);
    let done = run_with(home.exec(BEAT.into_iter().chain([&*target, "cat"])), &bytes).ended(0);
    assert!(done.stdout == bytes, "{} bytes came back", done.stdout.len());
    assert_eq!(proxy.left(), 0);
    assert!(proxy.connections() > 20, "{} connections", proxy.connections());
}

#[test]
fn a_command_runs_once_wherever_its_connection_is_cut() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let file = home.path("file");
    let line = format!("echo once >> '{}'; echo done", text(&file));
    // From the first byte of the handshake to the last one of the receipt.
    let (whole, target) = behind(&home, &server, Vec::new());
    run(home.exec([&target, &line])).ended(0);
    let all = whole.passed();
    for cut in (0..all + 100).step_by(usize::try_from(all / 60).unwrap()) {
        for fault in [Fault::Cut, Fault::Reset] {
            std::fs::write(&file, "").unwrap();
            let (proxy, target) = behind(&home, &server, vec![(cut, fault)]);
            let done = run(home.exec([&target, &line]));
            // Before the first connection there is nothing to come back to.
            if done.status == 194 {
                assert_eq!(home.text("file"), "", "{cut}");
                continue;
            }
            assert_eq!((done.status, done.out().as_str()), (0, "done\n"), "{cut}: {}", done.err());
            assert_eq!(home.text("file"), "once\n", "{cut} of {all}, {} connections", proxy.connections());
        }
    }
}

#[test]
fn a_host_that_is_frozen_for_a_while_is_come_back_to() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mark = home.path("mark");
    let line = format!("echo begun; until test -e '{}'; do sleep 0.05; done; echo ended", text(&mark));
    let mut client = Client::start(home.exec(BEAT.into_iter().chain([&*server.target(), &line])));
    assert_eq!(client.line(), "begun");
    signal(server.front(), "STOP");
    std::thread::sleep(2 * STALL);
    signal(server.front(), "CONT");
    server.wait_for_log("job gone on with");
    std::fs::write(&mark, "").unwrap();
    let done = client.finish().ended(0);
    assert_eq!(done.out(), "ended\n");
    assert!(done.err().contains("connection lost (the other side has not answered"), "{}", done.err());
    assert!(done.err().contains("the connection is back after"), "{}", done.err());
}

#[test]
fn a_host_that_has_moved_is_found_at_its_new_address() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0", "--listen", "native://127.0.0.1:0"]);
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", "");
    let ports: Vec<u16> =
        server.listening().iter().map(|url| url.rsplit_once(':').unwrap().1.parse().unwrap()).collect();
    let proxy = FaultyProxy::with(address(ports[0]), Vec::new()).unwrap();
    let target = know(&home, &proxy);
    let mut client = Client::start(home.exec([&target, "echo begun; sleep 1; echo ended"]));
    assert_eq!(client.line(), "begun");
    proxy.lead_to(address(ports[1]));
    proxy.cut();
    assert_eq!(client.finish().ended(0).out(), "ended\n");
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn ctrl_c_leaves_at_once_while_the_connection_is_lost() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let mut client = Client::start(home.exec(["--linger", "2s", &target, "echo $$; exec sleep 1000"]));
    let group = client.number();
    proxy.lead_to(nowhere());
    proxy.cut();
    eventually(PATIENCE, "it tries to come back", || proxy.connections() > 2);
    let asked = Instant::now();
    client.signal("INT");
    let done = client.finish();
    let done =
        done.complained(INTERRUPTED, &format!("remora: {target}: lost: "), "you left on Ctrl-C while the");
    assert!(done.err().contains("\nhint: it runs on for "), "{}", done.err());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

#[test]
fn the_command_of_a_client_that_never_comes_back_is_ended_after_its_linger_time() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut client =
        Client::start(home.exec(["--linger", "1s", &server.target(), "echo $$; yes & exec sleep 1000"]));
    let group = client.number();
    client.signal("KILL");
    let killed = Instant::now();
    client.finish();
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    assert!(killed.elapsed() > Duration::from_millis(900), "{:?}", killed.elapsed());
    server.wait_for_log("nobody has come back for a job");
}

#[test]
fn a_host_that_stays_away_is_given_up_after_the_time_for_that() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let mut client = Client::start(home.exec(["--reconnect", "1s", &target, "echo $$; exec sleep 1000"]));
    let _ = client.number();
    let id = jobs(&home, &target).remove(0)["id"].as_str().unwrap()[..12].to_owned();
    proxy.lead_to(nowhere());
    proxy.cut();
    let done = client.finish().ended(198);
    assert!(done.err().contains("lost: the connection was lost ("), "{}", done.err());
    assert!(done.err().contains("1 s of trying did not bring it back: "), "{}", done.err());
    // What it says to do does it.
    let way = format!("remora detach {target} {id}");
    assert!(
        done.err().ends_with(&format!("\nhint: it runs on for 10 min: {way} keeps it\n")),
        "{}",
        done.err()
    );
    proxy.lead_to(address(server.port));
    let mut command = home.remora();
    command.args(way.split_whitespace().skip(1));
    run(command).ended(0);
    assert_eq!(jobs(&home, &target)[0]["state"], "running");
}

#[test]
fn without_reconnecting_a_loss_is_the_end_and_the_host_ends_the_command() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let mut client = Client::start(home.exec(["--no-reconnect", &target, "echo $$; exec sleep 1000"]));
    let group = client.number();
    proxy.cut();
    client.finish().complained(198, &format!("remora: {target}: lost: "), "");
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn who_shows_another_host_key_is_not_come_back_to() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    home.make_key("other_key", "ed25519", "");
    let other_home = Home::with_key();
    std::fs::copy(home.path("other_key"), other_home.path("host_key")).unwrap();
    std::fs::copy(home.path("other_key.pub"), other_home.path("host_key.pub")).unwrap();
    let other = Server::start(&other_home);
    let mut client = Client::start(home.exec([&target, "echo $$; exec sleep 1000"]));
    let _ = client.number();
    proxy.lead_to(address(other.port));
    proxy.cut();
    client.finish().complained(198, "remora: ", "the host's key is not known");
}

#[test]
fn whose_key_was_removed_meanwhile_does_not_come_back_and_knowing_the_job_is_worth_nothing() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let mut client = Client::start(home.exec(["--linger", "1s", &target, "echo $$; exec sleep 1000"]));
    let group = client.number();
    home.write("authorized_keys", "");
    proxy.cut();
    let done = client.finish().ended(198);
    assert!(done.err().contains("lost: "), "{}", done.err());
    assert!(done.err().contains("does not accept"), "{}", done.err());
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

/// The lid is closed while a flood is on its way in either direction, for longer than the heartbeat.
#[test]
fn a_client_that_was_suspended_goes_on_to_the_byte() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let input = pattern(30_000_000);
    let mut command = home.exec(BEAT.into_iter().chain([&*server.target(), "sleep 1; cat"]));
    command.stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let given = input.clone();
    let feed = std::thread::spawn(move || stdin.write_all(&given).unwrap());
    server.wait_for_log("job started");
    for _ in 0..2 {
        client.signal("STOP");
        std::thread::sleep(2 * STALL);
        client.signal("CONT");
        std::thread::sleep(STALL / 3);
    }
    let done = client.finish().ended(0);
    feed.join().unwrap();
    assert!(done.stdout == input, "{} bytes", done.stdout.len());
}

#[test]
fn on_a_terminal_of_its_own_two_ctrl_c_leave_while_the_connection_is_lost() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let screen = Screen::open(&home, 12);
    screen.enter(&format!(
        "clear; {REMORA} exec -t --linger 1s {target} 'echo ready; sleep 1000'; echo left with $?"
    ));
    screen.shows("ready");
    proxy.lead_to(nowhere());
    proxy.cut();
    screen.shows("s ago; reconnecting, Ctrl-C twice");
    screen.press(&["C-c"]);
    assert!(!screen.text().contains("left with"), "one may be for the command");
    // Two that come close together, however long it takes here to press them.
    eventually(PATIENCE, "it is left", || {
        screen.press(&["C-c"]);
        screen.text().contains("left with 198")
    });
}

#[test]
fn on_a_terminal_a_line_tells_of_the_loss_and_is_gone_when_the_connection_is_back() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let screen = Screen::open(&home, 12);
    let mark = home.path("mark");
    let line =
        format!("printf 'half %s ' a; until test -e {}; do sleep 0.05; done; echo line", mark.display());
    screen.enter(&format!("clear; {REMORA} exec {target} \"{line}\"; echo left with $?"));
    screen.shows("half a");
    proxy.lead_to(nowhere());
    proxy.cut();
    let seen = screen.shows("s ago; reconnecting, Ctrl-C leaves");
    assert!(seen.contains(&format!("half a\nremora: {target}: connection lost ")), "{seen}");
    proxy.lead_to(address(server.port));
    eventually(PATIENCE, "the line is gone", || !screen.text().contains("connection lost"));
    std::fs::write(&mark, "").unwrap();
    let seen = screen.shows("left with 0");
    assert!(seen.contains("half a line\nleft with 0"), "{seen}");
}

#[test]
fn an_editor_in_a_shell_goes_on_behind_a_lost_connection_and_one_can_leave_it() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let screen = Screen::open(&home, 12);
    let file = home.path("text");
    screen.enter(&format!("clear; {REMORA} shell {target}; echo left with $?"));
    screen.shows("127.0.0.1:~");
    screen.enter(&format!("vim.tiny -u NONE {}", file.display()));
    screen.shows("[New File]");
    screen.type_text("ione two");
    screen.shows("one two");
    proxy.lead_to(nowhere());
    proxy.cut();
    screen.shows("s ago; reconnecting, Ctrl-C twice");
    // What is typed meanwhile gets there.
    screen.type_text(" three");
    proxy.lead_to(address(server.port));
    screen.shows("one two three");
    eventually(PATIENCE, "the line is gone", || !screen.text().contains("connection lost"));
    screen.press(&["Escape"]);
    screen.enter(":w");
    eventually(PATIENCE, "it is written", || {
        home.path("text").exists() && home.text("text") == "one two three\n"
    });
    proxy.lead_to(nowhere());
    proxy.cut();
    screen.shows("s ago; reconnecting");
    screen.press(&["C-c", "C-c"]);
    let seen = screen.shows("left with 198");
    assert!(seen.contains("you left on ~. or Ctrl-C while the connection was lost (198)"), "{seen}");
    assert!(seen.contains("hint: it runs on for 10 min: remora detach "), "{seen}");
    assert!(!seen.contains("s ago"), "{seen}");
}

#[test]
fn a_shell_and_its_session_go_on_at_the_prompt_and_in_a_script() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let mut command = home.remora();
    command.args(["shell", &target]).stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let mut write = |line: &str| stdin.write_all(line.as_bytes()).unwrap();
    write("cd /usr; export A=1\npwd\n");
    assert_eq!(client.line(), "/usr");
    // Between two lines.
    proxy.cut();
    write("pwd; echo $A; echo sleeping; sleep 1; echo slept\n");
    assert_eq!([client.line(), client.line(), client.line()], ["/usr", "1", "sleeping"]);
    proxy.cut();
    write("exit 4\n");
    assert_eq!(client.finish().ended(4).out(), "slept\n");
    assert!(proxy.connections() >= 3);
}

/// Starts a command detached, and gives its id.
fn detach(home: &Home, target: &str, options: &[&str], line: &str) -> String {
    let done = run(home.exec([&["--detach"], options, &[target, line]].concat())).ended(0);
    done.out().trim().to_owned()
}

#[test]
fn one_ctrl_c_leaves_what_is_watched_while_the_connection_is_lost() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let id = detach(&home, &target, &["--open-stdin"], "echo ready; sleep 1000");
    let screen = Screen::open(&home, 12);
    screen.enter(&format!("clear; {REMORA} attach {target} {id}; echo left with $?"));
    screen.shows("ready");
    proxy.lead_to(nowhere());
    proxy.cut();
    screen.shows("s ago; reconnecting, Ctrl-C leaves");
    screen.press(&["C-c"]);
    let seen = screen.shows("left with 0");
    assert!(seen.contains("you left; the command goes on") && !seen.contains("s ago"), "{seen}");
}

#[test]
fn a_terminal_that_is_watched_is_left_by_two_ctrl_c_while_the_connection_is_lost() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let id = detach(&home, &target, &["-tt"], "echo ready; sleep 1000");
    let screen = Screen::open(&home, 12);
    screen.enter(&format!("clear; {REMORA} attach {target} {id}; echo left with $?"));
    screen.shows("ready");
    proxy.lead_to(nowhere());
    proxy.cut();
    screen.shows("s ago; reconnecting, Ctrl-C twice");
    screen.press(&["C-c", "C-c"]);
    let seen = screen.shows("left with 0");
    assert!(seen.contains("you left; the command goes on") && !seen.contains("s ago"), "{seen}");
}

/// Waits until a client has asked, and waits for what takes its time.
fn settled(proxy: &FaultyProxy, before: u64) {
    let mut last = before;
    eventually(PATIENCE, "it waits", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = proxy.passed();
        now > before && now == std::mem::replace(&mut last, now)
    });
}

#[test]
fn who_only_waits_is_gone_at_a_ctrl_c_without_a_trace_of_the_loss() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let id = detach(&home, &target, &[], "echo ready; sleep 1000");
    for verb in ["logs -f", "wait"] {
        proxy.lead_to(address(server.port));
        let before = proxy.passed();
        let screen = Screen::open(&home, 12);
        screen.enter(&format!("clear; {REMORA} {verb} {target} {id}"));
        settled(&proxy, before);
        proxy.lead_to(nowhere());
        proxy.cut();
        screen.shows("s ago; reconnecting, Ctrl-C leaves");
        screen.press(&["C-c"]);
        screen.ends_with(LOCAL);
        screen.enter("echo left with $?");
        let seen = screen.shows("left with 130");
        assert!(!seen.contains("connection") && !seen.contains("s ago"), "{verb}: {seen}");
    }
}

#[test]
fn who_looks_at_a_command_that_goes_on_is_told_so_when_its_host_is_given_up() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (proxy, target) = behind(&home, &server, Vec::new());
    let id = detach(&home, &target, &[], "echo ready; sleep 1000");
    for verb in ["logs -f", "attach", "wait"] {
        proxy.lead_to(address(server.port));
        let before = proxy.passed();
        let mut command = home.remora();
        command.args(verb.split(' ')).args(["--reconnect", "1s", &target, &id]);
        let client = Client::start(command);
        settled(&proxy, before);
        proxy.lead_to(nowhere());
        proxy.cut();
        let way = format!("hint: the command goes on; to come back: remora {verb} {target} {id}\n");
        let done = client.finish().ended(198);
        assert!(done.err().ends_with(&way) && !done.err().contains("may have run"), "{verb}: {}", done.err());
    }
}

#[test]
fn a_host_that_falls_silent_is_told_of_once_that_is_noticed_and_since_its_last_word() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let screen = Screen::open(&home, 12);
    screen.resize(60, 12);
    let target = server.target();
    screen.enter(&format!("clear; {REMORA} exec --heartbeat 1500ms {target} 'echo ready; sleep 1000'"));
    screen.shows("ready");
    let front = server.front();
    signal(front, "STOP");
    let stopped = Instant::now();
    let end = Instant::now() + PATIENCE;
    let mut seen = screen.text();
    while !seen.contains("connection lost") && Instant::now() < end {
        seen = screen.text();
    }
    let time = stopped.elapsed();
    signal(front, "CONT");
    assert!(seen.contains("connection lost 3 s ago"), "after {time:?}: {seen}");
    assert!(time < Duration::from_millis(4500), "{time:?}: {seen}");
    // What there is no room for is marked as left out.
    assert!(seen.trim_end().ends_with('…'), "{seen}");
    screen.press(&["C-c"]);
    screen.ends_with(LOCAL);
}
