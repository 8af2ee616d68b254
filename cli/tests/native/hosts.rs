//! Which host keys are right: known_hosts, as ssh reads and writes it.

use std::net::SocketAddr;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

use crate::bench::{Home, Server, run, run_on_terminal, text};

/// A home with keys, and a server whose key nobody has recorded.
fn stranger() -> (Home, Server) {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let server = Server::start_with(&home, &["host_key"], &[]);
    (home, server)
}

fn fingerprint(home: &Home, key: &str) -> String {
    let shown =
        Command::new("ssh-keygen").args(["-lf"]).arg(home.path(&format!("{key}.pub"))).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// What the real ssh-keygen finds for this server.
fn found_by_ssh_keygen(home: &Home, server: &Server) -> String {
    let name = format!("[127.0.0.1]:{}", server.port);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-F", &name, "-f"]).arg(home.path(".ssh/known_hosts"));
    String::from_utf8(keygen.output().unwrap().stdout).unwrap()
}

#[test]
fn host_keys_of_each_type_are_good() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let home = Home::with_key();
        home.make_key("host_key", kind, "");
        let server = Server::start(&home);
        run(home.exec([&server.target(), "true"])).ended(0);
    }
}

#[test]
fn an_unknown_host_is_refused_with_a_hint() {
    let (home, server) = stranger();
    let done = run(home.exec([&server.target(), "touch started"]));
    let done =
        done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "--accept-new");
    assert!(done.err().contains(&fingerprint(&home, "host_key")), "{}", done.err());
    assert!(!home.path(".ssh/known_hosts").exists());
    server.wait_for_log("no connection");
    assert!(!server.log().contains("authenticated"), "{}", server.log());
}

#[test]
fn accept_new_records_what_ssh_finds_too() {
    let (home, server) = stranger();
    let done = run(home.exec(["--accept-new", &server.target(), "echo hi"])).ended(0);
    assert_eq!(done.out(), "hi\n");
    assert!(done.err().contains(&fingerprint(&home, "host_key")), "{}", done.err());
    assert!(found_by_ssh_keygen(&home, &server).contains(&home.public("host_key")));
    assert_eq!(run(home.exec([&server.target(), "true"])).ended(0).err(), "");
    let before = home.text(".ssh/known_hosts");
    run(home.exec(["--accept-new", &server.target(), "true"])).ended(0);
    assert_eq!(home.text(".ssh/known_hosts"), before, "a known host is recorded once");
}

#[test]
fn a_recorded_key_does_not_join_an_unfinished_line() {
    let (home, server) = stranger();
    home.write(".ssh/known_hosts", &format!("other.example {}", home.public(".ssh/id_ed25519")));
    run(home.exec(["--accept-new", &server.target(), "true"])).ended(0);
    assert!(found_by_ssh_keygen(&home, &server).contains(&home.public("host_key")));
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn another_key_than_the_recorded_one_is_always_refused() {
    let (home, server) = stranger();
    home.make_key("other_key", "ed25519", "");
    let line = server.known_line(&home, "other_key");
    home.write(".ssh/known_hosts", &line);
    for flags in [&[][..], &["--accept-new"]] {
        let mut command = home.exec(flags);
        command.args([&server.target(), "touch started"]);
        let done = run(command);
        let done =
            done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "ssh-keygen -R");
        assert!(done.err().contains(&fingerprint(&home, "host_key")), "{}", done.err());
    }
    // Nobody is asked, either.
    let done = run_on_terminal(&home, &home.exec([&server.target(), "true"]), &[]).ended(195);
    assert!(!done.out().contains("Trust"), "{}", done.out());
    assert_eq!(home.text(".ssh/known_hosts"), line);
    assert!(!server.log().contains("authenticated"), "{}", server.log());
}

#[test]
fn a_key_of_another_type_than_the_recorded_one_is_refused() {
    let (home, server) = stranger();
    home.make_key("other_key", "ecdsa", "");
    home.write(".ssh/known_hosts", &server.known_line(&home, "other_key"));
    let done = run(home.exec(["--accept-new", &server.target(), "true"]));
    done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "recorded type");
}

#[test]
fn a_mismatch_with_the_plain_name_counts_as_unknown_and_is_not_accepted_unseen() {
    let (home, server) = stranger();
    home.make_key("other_key", "ed25519", "");
    let line = format!("127.0.0.1 {}\n", home.public("other_key"));
    home.write(".ssh/known_hosts", &line);
    let class = format!("remora: {}: unauthenticated: ", server.target());
    let done = run(home.exec([&server.target(), "true"])).complained(195, &class, "is not known");
    assert!(done.err().contains("another key is on record for 127.0.0.1"), "{}", done.err());
    run(home.exec(["--accept-new", &server.target(), "true"])).complained(195, &class, "is not known");
    assert_eq!(home.text(".ssh/known_hosts"), line);
    // A person may: it is then known for exactly this port.
    let done =
        run_on_terminal(&home, &home.exec([&server.target(), "true"]), &[("Trust this key", "yes")]).ended(0);
    assert!(done.out().contains("Another key is on record"), "{}", done.out());
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn the_plain_names_key_is_good_for_our_port_too() {
    let (home, server) = stranger();
    home.write(".ssh/known_hosts", &format!("127.0.0.1 {}\n", home.public("host_key")));
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn hashed_names_are_known_and_stay_hashed() {
    let (home, server) = stranger();
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let hash = Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(home.path(".ssh/known_hosts"))
        .output()
        .unwrap();
    assert!(hash.status.success());
    run(home.exec([&server.target(), "true"])).ended(0);
    let mut second = Server::command_in(&home, &["host_key"], "another");
    second.args(["--listen", "native://127.0.0.1:0"]);
    let second = Server::spawn(&home, second);
    run(home.exec(["--accept-new", &second.target(), "true"])).ended(0);
    assert!(found_by_ssh_keygen(&home, &second).contains(&home.public("host_key")));
    assert!(
        home.text(".ssh/known_hosts").lines().all(|line| line.starts_with("|1|")),
        "{}",
        home.text(".ssh/known_hosts")
    );
}

#[test]
fn a_host_known_by_one_type_of_key_is_asked_for_that_key() {
    let home = Home::with_key();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        home.make_key(kind, kind, "");
    }
    let server = Server::start_with(&home, &["ed25519", "ecdsa", "rsa"], &[]);
    for (kind, told) in
        [("rsa", "host key RSA"), ("ecdsa", "host key ECDSA"), ("ed25519", "host key ED25519")]
    {
        home.write(".ssh/known_hosts", &server.known_line(&home, kind));
        let done = run(home.exec(["-v", &server.target(), "true"])).ended(0);
        assert!(done.err().contains(told), "{}", done.err());
    }
}

#[test]
fn a_revoked_key_is_refused() {
    let (home, server) = stranger();
    let line = server.known_line(&home, "host_key");
    home.write(".ssh/known_hosts", &format!("{line}@revoked * {}\n", home.public("host_key")));
    // Of the recorded keys none is left to ask for; on a host with others it would be the key that is refused.
    let done = run(home.exec(["--accept-new", &server.target(), "true"]));
    done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "");
    home.write(".ssh/known_hosts", &format!("@revoked * {}\n", home.public("host_key")));
    let done = run(home.exec(["--accept-new", &server.target(), "true"]));
    done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "revoked");
}

#[test]
fn on_a_terminal_a_person_accepts_by_yes_or_by_the_fingerprint() {
    for answer in ["yes", "fingerprint"] {
        let (home, server) = stranger();
        let print = fingerprint(&home, "host_key");
        let answer = if answer == "yes" { "yes" } else { &print };
        let command = home.exec([&server.target(), "echo in"]);
        let dialogue = [("Trust this key", "maybe"), ("Trust this key", answer)];
        let done = run_on_terminal(&home, &command, &dialogue).ended(0);
        assert!(done.out().contains(&print), "{}", done.out());
        assert!(done.out().ends_with("in\r\n"), "{:?}", done.out());
        assert!(found_by_ssh_keygen(&home, &server).contains(&home.public("host_key")));
    }
}

#[test]
fn on_a_terminal_a_person_may_say_no() {
    let (home, server) = stranger();
    let command = home.exec([&server.target(), "true"]);
    run_on_terminal(&home, &command, &[("Trust this key", "no")]).ended(195);
    let command = home.exec([&server.target(), "true"]);
    run_on_terminal(&home, &command, &[("Trust", "SHA256:AAAA"), ("Trust", ""), ("Trust", "y")]).ended(195);
    assert!(!home.path(".ssh/known_hosts").exists());
}

#[test]
fn another_known_hosts_file_can_be_named() {
    let (home, server) = stranger();
    let file = home.write("elsewhere", &server.known_line(&home, "host_key"));
    run(home.exec(["--known-hosts", text(&file), &server.target(), "true"])).ended(0);
    run(home.exec([&server.target(), "true"])).ended(195);
}

#[test]
#[ignore = "needs root"]
fn of_a_names_addresses_the_first_that_answers_is_taken() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    // A port that is taken at the first address, with nobody who listens.
    let refusing = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&refusing, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = SocketAddr::try_from(getsockname(&refusing).unwrap()).unwrap().port();
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", &format!("native://127.0.0.2:{port}")]);
    let _server = Server::spawn(&home, command);
    // Only root may give a process a hosts(5) of its own.
    let hosts = home.write("hosts", "127.0.0.1 twofold\n127.0.0.2 twofold\n");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut command = home.remora_under("unshare", &["--mount", "sh", "-c", script, text(&hosts)]);
    command.args(["exec", "-v", "--accept-new", "-p", &port.to_string(), "twofold", "echo there"]);
    let done = run(command).ended(0);
    assert_eq!(done.out(), "there\n");
    assert!(
        done.err().contains(&format!("resolved to 127.0.0.1:{port}, 127.0.0.2:{port}\n")),
        "{}",
        done.err()
    );
    assert!(done.err().contains(&format!("connected to 127.0.0.2:{port}\n")), "{}", done.err());
}

#[test]
fn known_hosts_that_cannot_be_read_are_no_reason_to_trust() {
    let (home, server) = stranger();
    let folder = home.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for options in [&[][..], &["--accept-new"]] {
        let mut command = home.exec(options);
        command.args(["--known-hosts", text(&folder), &server.target(), "true"]);
        run(command).complained(193, "remora: usage: can't use ", "--known-hosts");
    }
    let lost = home.path("no/such/known_hosts");
    run(home.exec(["--accept-new", "--known-hosts", text(&lost), &server.target(), "true"])).complained(
        193,
        "remora: usage: --known-hosts: there is no folder ",
        "no/such",
    );
    assert!(!home.path("no").exists());
}
