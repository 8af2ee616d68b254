//! `remora serve`: starting, refusing to start, rereading, stopping.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use remora_testkit::{eventually, group_members};

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, text};

fn configured(home: &Home, text: &str, flags: &[&str]) -> Command {
    if !home.path("host_key").exists() {
        home.make_key("host_key", "ed25519", "");
    }
    let config = home.write("config.toml", text);
    let mut command = Server::command(home, &["host_key"]);
    command.arg("--config").arg(config).args(flags);
    command
}

/// The URLs of `listen`, as TOML.
fn listen(urls: &[&str]) -> String {
    format!("listen = {urls:?}\n")
}

#[track_caller]
fn refused(command: Command, within: &str) -> Done {
    run(command).complained(193, "remora: usage: ", within)
}

#[test]
fn each_listener_is_told_with_its_real_port() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let socket = format!("unix:{}", text(&home.path("socket")));
    let server =
        Server::start_with(&home, &["host_key"], &["--listen", "native://127.0.0.1:0", "--listen", &socket]);
    let urls = server.listening();
    assert_eq!(urls.len(), 3);
    assert_eq!(urls[2], socket);
    home.write(".ssh/known_hosts", &format!("127.0.0.1 {}\n", home.public("host_key")));
    for url in &urls {
        run(home.exec([url, "true"])).ended(0);
    }
}

#[test]
fn a_host_key_that_others_can_read_is_refused() {
    let home = Home::with_key();
    let key = home.make_key("host_key", "ed25519", "");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0"]);
    refused(command, text(&key)).complained(193, "remora: usage: ", "hint: chmod go-rwx");
}

#[test]
fn a_host_key_that_cannot_be_used_is_refused() {
    let home = Home::with_key();
    home.make_key("locked", "ed25519", "secret");
    home.write("nonsense", "not a key\n");
    for (key, why) in [("locked", "passphrase"), ("nonsense", "nonsense"), ("missing", "missing")] {
        let mut command = Server::command(&home, &[key]);
        command.args(["--listen", "native://127.0.0.1:0"]);
        refused(command, why);
    }
}

#[test]
fn an_unknown_configuration_key_is_refused_with_its_line() {
    let home = Home::with_key();
    let command = configured(
        &home,
        "\nstop_grace_seconds = 1\nlisten_on = []\n",
        &["--listen", "native://127.0.0.1:0"],
    );
    let done = refused(command, "config.toml:3: ");
    assert!(done.err().contains("listen_on"), "{}", done.err());
    refused(configured(&home, "[limits]\nmemory = 1\n", &[]), "config.toml:2: ");
    refused(configured(&home, "listen = [\n", &[]), "config.toml:");
    let mut command = Server::command(&home, &[]);
    command.args(["--config", "/nonexistent/config"]);
    refused(command, "/nonexistent/config");
}

#[test]
fn a_listening_url_that_makes_no_sense_is_refused() {
    let home = Home::with_key();
    for url in
        ["127.0.0.1:1", "http://127.0.0.1:1", "native://localhost:1", "unix:", "native://127.0.0.1:1?x=y"]
    {
        let mut command = Server::command(&home, &[]);
        command.args(["--listen", url]);
        refused(command, "");
    }
}

#[test]
fn plain_wires_off_the_loopback_or_as_root_need_their_flag() {
    let home = Home::with_key();
    let root = crate::bench::own_name() == "root";
    for wire in ["raw", "length", "header"] {
        let mut command = Server::command(&home, &[]);
        command.args(["--allow-plaintext-root", "--listen", &format!("{wire}://0.0.0.0:0")]);
        refused(command, "--allow-plaintext-network");
        let mut command = Server::command(&home, &[]);
        command.args(["--listen", &format!("{wire}://127.0.0.1:0")]);
        if root {
            refused(command, "--allow-plaintext-root");
        } else {
            drop(Server::spawn(&home, command));
        }
    }
    let mut command = Server::command(&home, &[]);
    command.args(["--allow-plaintext-network", "--allow-plaintext-root", "--listen", "length://0.0.0.0:0"]);
    assert!(Server::spawn(&home, command).listening()[0].starts_with("length://0.0.0.0:"));
}

#[test]
fn two_servers_do_not_listen_on_one_port_or_socket() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let socket = format!("unix:{}", text(&home.path("socket")));
    let other = Home::with_key();
    let _second =
        Server::start_with(&other, &[], &["--host-key", text(&home.path("host_key")), "--listen", &socket]);
    for url in [format!("native://{}", server.target()), socket] {
        let mut command = Server::command_in(&home, &["host_key"], "another");
        command.args(["--listen", &url]);
        run(command).complained(194, "remora: unreachable: can't listen", &url);
    }
}

#[test]
fn the_socket_of_a_killed_server_is_taken_over() {
    let home = Home::empty();
    let socket = format!("unix:{}", text(&home.path("socket")));
    let start = || {
        let mut command = Server::command(&home, &[]);
        command.args(["--listen", &socket]);
        Server::spawn(&home, command)
    };
    start().kill_at_once();
    assert!(home.path("socket").exists());
    let _second = start();
    run(home.exec([&socket, "true"])).ended(0);
}

#[test]
fn flags_win_over_the_configuration() {
    let home = Home::with_key();
    let socket = |name: &str| format!("unix:{}", text(&home.path(name)));
    let config = format!("{}state_dir = \"/nonexistent\"\n", listen(&[&socket("a")]));
    let server = Server::spawn(&home, configured(&home, &config, &["--listen", &socket("b")]));
    assert_eq!(server.listening(), [socket("b")]);
    drop(server);
    let server = Server::spawn(&home, configured(&home, &config, &[]));
    assert_eq!(server.listening(), [socket("a")]);
}

#[test]
fn sighup_rereads_without_dropping_a_connection() {
    let home = Home::with_key();
    let socket = |name: &str| format!("unix:{}", text(&home.path(name)));
    let config = home.path("config.toml");
    let mut server =
        Server::spawn(&home, configured(&home, &listen(&["native://127.0.0.1:0", &socket("a")]), &[]));
    let port = server.listening()[0].rsplit_once(':').unwrap().1.to_owned();
    home.write(".ssh/known_hosts", &format!("127.0.0.1 {}\n", home.public("host_key")));
    let target = format!("127.0.0.1:{port}");
    let wait = "trap 'echo done; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut over_tcp = Client::start(home.exec([&target, wait]));
    let mut over_unix = Client::start(home.exec([&socket("a"), wait]));
    assert_eq!((over_tcp.line(), over_unix.line()), ("ready".to_owned(), "ready".to_owned()));

    fs::write(&config, listen(&["native://127.0.0.1:0", &socket("b")]) + "[limits]\nopen_files = 33\n")
        .unwrap();
    server.signal("HUP");
    server.wait_for_log("configuration read again");
    assert_eq!(server.listening()[2], socket("b"));
    eventually(PATIENCE, "the removed listener is closed", || !home.path("a").exists());
    run(home.exec([&socket("a"), "true"])).ended(194);
    for url in [&socket("b"), &target] {
        assert_eq!(run(home.exec([url, "ulimit -n"])).ended(0).out(), "33\n");
    }

    fs::write(&config, listen(&[&socket("c")]) + "nonsense = 1\n").unwrap();
    server.signal("HUP");
    server.wait_for_log("the configuration stays as it was");
    assert!(server.log().contains("config.toml:2: "), "{}", server.log());
    run(home.exec([&target, "true"])).ended(0);
    assert!(!home.path("c").exists());

    for client in [over_tcp, over_unix] {
        client.signal("TERM");
        assert_eq!(client.finish().ended(7).out(), "done\n");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn sighup_rereads_host_keys_and_old_connections_go_on() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let mut old =
        Client::start(home.exec([
            &server.target(),
            "trap 'echo done; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ]));
    assert_eq!(old.line(), "ready");
    home.make_key("new_key", "ed25519", "");
    for name in ["host_key", "host_key.pub"] {
        fs::rename(home.path(&name.replace("host", "new")), home.path(name)).unwrap();
    }
    // Not before it is told to.
    run(home.exec([&server.target(), "true"])).ended(0);
    server.signal("HUP");
    server.wait_for_log("configuration read again");
    let class = format!("remora: {}: unauthenticated: ", server.target());
    run(home.exec([&server.target(), "true"])).complained(195, &class, "");
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    run(home.exec([&server.target(), "true"])).ended(0);
    old.signal("TERM");
    assert_eq!(old.finish().ended(7).out(), "done\n");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// In a network of its own, where the port is free.
#[test]
#[ignore = "needs root"]
fn without_a_port_the_native_wire_is_served_and_found_on_7366() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    home.write(".ssh/known_hosts", &format!("127.0.0.1,::1 {}\n", home.public("host_key")));
    for (listen, url, target) in [
        (&[][..], "native://0.0.0.0:7366", "127.0.0.1"),
        (&["--listen", "native://127.0.0.1"], "native://127.0.0.1:7366", "127.0.0.1"),
        (&["--listen", "native://[::1]"], "native://[::1]:7366", "[::1]"),
    ] {
        let alone = ["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
        let mut command = home.remora_under("unshare", &alone);
        command.args(Server::command(&home, &["host_key"]).get_args()).args(listen);
        let server = Server::spawn(&home, command);
        assert_eq!(server.listening(), [url]);
        let inside = ["-t", &server.pid().to_string(), "-n"];
        let mut command = home.remora_under("nsenter", &inside);
        command.args(["exec", target, "echo found"]);
        assert_eq!(run(command).ended(0).out(), "found\n");
    }
}

#[test]
fn sigterm_lets_a_running_command_end_and_takes_no_new_one() {
    for signal in ["TERM", "INT"] {
        let home = Home::with_key();
        let mut server = Server::start(&home);
        let mut client =
            Client::start(home.exec([&server.target(), "echo ready; read line; echo $line; exit 5"]));
        let mut stdin = client.child.stdin.take();
        assert!(stdin.is_none(), "stdin was closed");
        drop(client);
        let mut command = home.exec([&server.target(), "echo ready; read line; echo $line; exit 5"]);
        command.stdin(std::process::Stdio::piped());
        client = Client::start(command);
        stdin = client.child.stdin.take();
        assert_eq!(client.line(), "ready");
        server.signal(signal);
        let port = server.port;
        eventually(PATIENCE, "nothing listens any more", || TcpStream::connect(("127.0.0.1", port)).is_err());
        run(home.exec([&server.target(), "true"])).ended(194);
        std::io::Write::write_all(&mut stdin.take().unwrap(), b"the end\n").unwrap();
        assert_eq!(client.finish().ended(5).out(), "the end\n");
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn after_the_grace_time_sigterm_ends_what_still_runs() {
    let home = Home::with_key();
    let config = listen(&["native://127.0.0.1:0"]) + "stop_grace_seconds = 0\n";
    let mut server = Server::spawn(&home, configured(&home, &config, &[]));
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let status = home.path("status");
    let line = "echo $$; sleep 1000 & exec sleep 1000";
    let mut client = Client::start(home.exec(["--status-file", text(&status), &server.target(), line]));
    let group = client.number();
    server.signal("TERM");
    client.finish().complained(143, &format!("remora: {}: signaled: ", server.target()), "shutdown");
    assert_eq!(server.wait().code(), Some(0));
    assert!(group_members(group).is_empty(), "all of the group is gone when the server is");
    let told: serde_json::Value = serde_json::from_str(&home.text("status")).unwrap();
    assert_eq!(told["outcome"]["by"], "shutdown");
}

#[test]
fn a_second_signal_ends_what_still_runs_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let home = Home::with_key();
        let config = listen(&["native://127.0.0.1:0"]) + "stop_grace_seconds = 1000\n";
        let mut server = Server::spawn(&home, configured(&home, &config, &[]));
        home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
        let line = "sleep 1000 & echo $$; exec sleep 1000";
        let mut obedient = Client::start(home.exec([&server.target(), line]));
        // Killed, after the grace that SIGTERM gives.
        let mut stubborn = Client::start(home.exec([&server.target(), &format!("trap '' TERM; {line}")]));
        let groups = [obedient.number(), stubborn.number()];
        server.signal(first);
        server.wait_for_log("a second signal");
        assert!(groups.iter().all(|group| !group_members(*group).is_empty()), "the grace lasts");
        server.signal(second);
        let start = format!("remora: {}: signaled: ", server.target());
        obedient.finish().complained(143, &start, "shutdown");
        stubborn.finish().complained(137, &start, "shutdown");
        assert_eq!(server.wait().code(), Some(0));
        assert!(groups.iter().all(|group| group_members(*group).is_empty()), "nothing is left");
    }
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_the_end() {
    let home = Home::with_key();
    let config = listen(&["native://127.0.0.1:0"]) + "stop_grace_seconds = 0\n";
    let mut server = Server::spawn(&home, configured(&home, &config, &[]));
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let mut client = Client::start(home.exec(["--no-reconnect", &server.target(), "echo $$; exec yes"]));
    let group = client.number();
    client.signal("STOP");
    // Once every buffer on the way is full, the command writes no more.
    let mut written = (0, std::time::Instant::now());
    remora_testkit::eventually(PATIENCE, "the command is held back", || {
        let io = std::fs::read_to_string(format!("/proc/{group}/io")).unwrap_or_default();
        let now =
            io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap_or_default();
        if now != written.0 {
            written = (now, std::time::Instant::now());
        }
        now > 0 && written.1.elapsed() > std::time::Duration::from_millis(300)
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(group_members(group).is_empty(), "nothing is left");
    assert!(server.log().contains("cut off"), "{}", server.log());
    client.signal("CONT");
    client.finish().ended(198);
}

#[test]
fn a_host_without_a_key_makes_one_once_and_says_where() {
    let home = Home::with_key();
    let start = || Server::start_with(&home, &[], &[]);
    let made = home.path("state/host_ed25519_key");
    let server = start();
    let said = server.log().lines().any(|line| line == format!("remora: made a host key: {}", text(&made)));
    let keys = ["ed25519", "ecdsa", "rsa"].map(|kind| format!("/etc/ssh/ssh_host_{kind}_key"));
    if keys.iter().any(|path| fs::File::open(path).is_ok()) {
        // This host has keys that are readable here: those are taken, and no other is made.
        assert!(!said && !made.exists(), "{}", server.log());
        return;
    }
    assert!(said, "{}", server.log());
    assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let public = Command::new("ssh-keygen").arg("-yf").arg(&made).output().unwrap();
    let public = String::from_utf8(public.stdout).unwrap();
    home.write(".ssh/known_hosts", &format!("127.0.0.1 {public}"));
    run(home.exec([&server.target(), "true"])).ended(0);
    drop(server);
    let server = start();
    assert!(!server.log().contains("made a host key"), "{}", server.log());
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn an_ipv6_address_is_a_place_to_listen_and_a_target() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://[::1]:0"]);
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", &format!("[::1]:{} {}\n", server.port, home.public("host_key")));
    let done = run(home.exec([&format!("[::1]:{}", server.port), "echo six"])).ended(0);
    assert_eq!(done.out(), "six\n");
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_server() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0"]).env("REMORA_LOG", "debug");
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first line is read, and nothing after it: the pipe fills up.
    let mut log = std::io::BufReader::with_capacity(64, child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    let port: u16 = line.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    home.write(".ssh/known_hosts", &format!("[127.0.0.1]:{port} {}\n", home.public("host_key")));
    // A job logs some 500 bytes, and a pipe holds 64 KiB.
    for _ in 0..300 {
        run(home.exec([&format!("127.0.0.1:{port}"), "true"])).ended(0);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_fifo_in_the_place_of_authorized_keys_holds_up_nobody() {
    let home = Home::with_key();
    let server = Server::start(&home);
    run(home.exec([&server.target(), "true"])).ended(0);
    let keys = home.path("authorized_keys");
    let text = fs::read(&keys).unwrap();
    fs::remove_file(&keys).unwrap();
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&keys).status().unwrap().success());
    run(home.exec([&server.target(), "true"])).complained(195, "remora: ", "unauthenticated");
    fs::remove_file(&keys).unwrap();
    fs::write(&keys, text).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn a_path_of_authorized_keys_with_an_unknown_token_is_refused() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    // Without the flag of the other tests, which would win.
    let start = |path: &str| {
        let config = format!("{}authorized_keys = [{path:?}]\n", listen(&["native://127.0.0.1:0"]));
        let mut command = home.remora();
        command.arg("serve").arg("--host-key").arg(home.path("host_key"));
        command.arg("--config").arg(home.write("config.toml", &config));
        command
    };
    refused(start("/etc/keys/%x"), "%x is no token");
    refused(start("/etc/keys/%"), "a % at the end");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0", "--authorized-keys", "%h/%d"]);
    refused(command, "%d is no token");
    // And a percent is one.
    home.write("100%", &home.text("authorized_keys"));
    let mut server = Server::spawn(&home, start(&format!("{}/100%%", text(&home.path("")))));
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    run(home.exec([&server.target(), "true"])).ended(0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn durations_beyond_a_week_are_refused() {
    let home = Home::with_key();
    for text in ["stop_grace_seconds = 604801\n", "[limits]\nwall_seconds = 9223372036854775807\n"] {
        refused(configured(&home, text, &[]), "are too long: a week");
    }
}

#[test]
fn limits_of_nothing_are_refused() {
    let home = Home::with_key();
    for text in ["max_connections = 0\n", "[limits]\nwall_seconds = 0\n", "[limits]\nopen_files = 0\n"] {
        refused(configured(&home, &(listen(&["native://127.0.0.1:0"]) + text), &[]), "would serve nobody");
    }
}

#[test]
fn a_server_that_listens_nowhere_is_refused_with_its_line() {
    let home = Home::with_key();
    refused(configured(&home, "\nlisten = []\n", &[]), "config.toml:2: listen = [] would serve nobody");
}

#[test]
fn a_full_host_is_told_as_one_that_may_be() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let config = home.write("config.toml", "max_connections = 1\n");
    let server = Server::start_with(&home, &["host_key"], &["--config", text(&config)]);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let mut first = Client::start(home.exec([&server.target(), "echo here; exec sleep 1000"]));
    assert_eq!(first.line(), "here");
    let words = "closed the connection during the TLS handshake: the host may be full";
    run(home.exec([&server.target(), "true"])).complained(194, "remora: ", words);
}
