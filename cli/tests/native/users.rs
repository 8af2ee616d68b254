//! Who the user is: keys from files and agents, passphrases, authorized_keys, and the key that worked last.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remora_testkit::{odd_child, pattern};

use crate::bench::{Agent, Home, Server, run, run_on_terminal, run_with, text};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn keys_of_each_type_are_found_under_their_default_names() {
    for (name, kind) in [("id_ed25519", "ed25519"), ("id_ecdsa", "ecdsa"), ("id_rsa", "rsa")] {
        let home = Home::empty();
        let name = format!(".ssh/{name}");
        home.make_key(&name, kind, "");
        home.authorize(&[&name]);
        let server = Server::start(&home);
        run(home.exec([&server.target(), "true"])).ended(0);
    }
}

#[test]
fn keys_of_each_type_can_be_named() {
    let home = Home::empty();
    let server = Server::start(&home);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = home.make_key(kind, kind, "");
        home.authorize(&[kind]);
        run(home.exec(["--identity", text(&key), &server.target(), "true"])).ended(0);
    }
    let done = run(home.exec(["-i", text(&home.path("ed25519")), &server.target(), "true"]));
    done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "authorized_keys");
    // Of several the one that counts is found.
    let mut command = home.exec(["-i", text(&home.path("ed25519")), "-i", text(&home.path("ecdsa"))]);
    command.args(["-i", text(&home.path("rsa")), &server.target(), "true"]);
    run(command).ended(0);
}

#[test]
fn keys_of_each_type_sign_in_an_agent() {
    let home = Home::empty();
    let server = Server::start(&home);
    let agent = Agent::start(&home);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = home.make_key(kind, kind, "");
        agent.add(&key);
        fs::remove_file(&key).unwrap();
        home.authorize(&[kind]);
        let mut command = home.exec(["-v", &server.target(), "true"]);
        command.env("SSH_AUTH_SOCK", &agent.socket);
        let done = run(command).ended(0);
        assert!(done.err().contains("(agent)"), "{}", done.err());
    }
}

#[test]
fn an_agent_that_is_gone_is_told_and_no_reason_to_give_up() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut command = home.exec([&server.target(), "true"]);
    command.env("SSH_AUTH_SOCK", home.path("nobody"));
    let done = run(command).ended(0);
    assert_eq!(done.err().lines().count(), 1, "{}", done.err());
    assert!(done.err().contains("agent"), "{}", done.err());
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let home = Home::empty();
        let name = format!(".ssh/id_{kind}");
        home.make_key(&name, kind, "correct horse");
        home.authorize(&[&name]);
        let server = Server::start(&home);
        let command = home.exec([&server.target(), "echo in"]);
        let dialogue = [("Passphrase for key", "wrong"), ("Passphrase for key", "correct horse")];
        let done = run_on_terminal(&home, &command, &dialogue).ended(0);
        assert!(done.out().contains("that passphrase is wrong"), "{}", done.out());
        assert!(done.out().ends_with("in\r\n"), "{:?}", done.out());
        assert!(!done.out().contains("correct horse"), "it is not shown: {}", done.out());
    }
}

#[test]
fn a_locked_key_without_a_terminal_is_refused_with_a_hint() {
    let home = Home::empty();
    let key = home.make_key(".ssh/id_ed25519", "ed25519", "correct horse");
    home.authorize(&[".ssh/id_ed25519"]);
    let server = Server::start(&home);
    let done = run_with(home.exec([&server.target(), "true"]), b"correct horse\n");
    let done = done.complained(195, "remora: 127.0.0.1", "ssh-add");
    assert!(done.err().contains(text(&key)), "{}", done.err());
}

#[test]
fn a_locked_key_that_an_agent_holds_asks_nobody() {
    let home = Home::empty();
    let key = home.make_key(".ssh/id_ed25519", "ed25519", "");
    home.authorize(&[".ssh/id_ed25519"]);
    let server = Server::start(&home);
    let agent = Agent::start(&home);
    agent.add(&key);
    let locked = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-a", "1", "-P", "", "-N", "correct horse", "-f"])
        .arg(&key)
        .output()
        .unwrap();
    assert!(locked.status.success());
    for flags in [&[][..], &["-i", text(&key)]] {
        let mut command = home.exec(flags);
        command.args([&server.target(), "true"]).env("SSH_AUTH_SOCK", &agent.socket);
        assert_eq!(run(command).ended(0).err(), "");
    }
}

#[test]
fn a_private_key_that_others_can_read_is_not_used() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let key = home.path(".ssh/id_ed25519");
    chmod(&key, 0o644);
    let done = run(home.exec(["-i", text(&key), &server.target(), "true"]));
    done.complained(193, "remora: usage: can't use the key", "hint: chmod go-rwx");
    let done = run(home.exec([&server.target(), "true"])).ended(195);
    assert!(done.err().contains(text(&key)), "{}", done.err());
}

#[test]
fn a_line_with_options_is_refused_loudly() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let key = home.public(".ssh/id_ed25519");
    home.write("authorized_keys", &format!("# ours\ncommand=\"true\" {key}\n"));
    run(home.exec([&server.target(), "true"])).ended(195);
    server.wait_for_log("key line refused");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("key line refused")).unwrap();
    assert!(line.contains("WARN") && line.contains("line=2") && line.contains("option"), "{line}");
    assert!(!log.contains("job started"));
}

#[test]
fn a_key_taken_out_of_the_file_is_out_at_once() {
    let home = Home::with_key();
    let server = Server::start(&home);
    run(home.exec([&server.target(), "true"])).ended(0);
    home.authorize(&[]);
    run(home.exec([&server.target(), "true"])).ended(195);
    home.authorize(&[".ssh/id_ed25519"]);
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn authorized_keys_that_others_can_write_count_for_nothing() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let file = home.path("authorized_keys");
    let folder = home.path("");
    for (path, mode, good) in
        [(&file, 0o620, 0o600), (&file, 0o602, 0o600), (&folder, 0o720, 0o700), (&folder, 0o702, 0o700)]
    {
        chmod(path, mode);
        run(home.exec([&server.target(), "true"])).ended(195);
        let log = server.log();
        let line = log.lines().rfind(|line| line.contains("authorized keys not read")).unwrap();
        assert!(line.contains(text(path).trim_end_matches('/')), "{line}");
        chmod(path, good);
        run(home.exec([&server.target(), "true"])).ended(0);
    }
}

#[test]
fn authorized_keys_behind_a_folder_of_others_count_for_nothing() {
    let home = Home::with_key();
    let loose = home.path("loose");
    fs::create_dir(&loose).unwrap();
    chmod(&loose, 0o777);
    fs::rename(home.path("authorized_keys"), loose.join("keys")).unwrap();
    // A link in a good place doesn't make what it names any better.
    std::os::unix::fs::symlink(loose.join("keys"), home.path("authorized_keys")).unwrap();
    let server = Server::start(&home);
    run(home.exec([&server.target(), "true"])).ended(195);
    server.wait_for_log("authorized keys not read");
    chmod(&loose, 0o755);
    run(home.exec([&server.target(), "true"])).ended(0);
}

#[test]
fn several_files_of_authorized_keys_count_and_one_may_be_missing() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let second = home.path("second");
    fs::rename(home.path("authorized_keys"), &second).unwrap();
    let server = Server::start_with(&home, &["host_key"], &["--authorized-keys", text(&second)]);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    run(home.exec([&server.target(), "true"])).ended(0);
    assert!(!server.log().contains("not read"), "{}", server.log());
}

/// A home with two keys, of which the second is accepted and remembered.
fn remembering() -> (Home, Server) {
    let home = Home::with_key();
    home.make_key(".ssh/id_ecdsa", "ecdsa", "");
    home.authorize(&[".ssh/id_ecdsa"]);
    let server = Server::start(&home);
    let done = run(home.exec(["-v", &server.target(), "true"])).ended(0);
    assert!(done.err().contains("asked about 2 keys"), "{}", done.err());
    (home, server)
}

#[test]
fn the_key_that_worked_is_used_at_once_the_next_time() {
    let (home, server) = remembering();
    let done = run(home.exec(["-v", &server.target(), "true"])).ended(0);
    assert!(!done.err().contains("asked about"), "{}", done.err());
    assert!(done.err().contains("id_ecdsa)"), "{}", done.err());
}

#[test]
fn the_agents_key_that_worked_is_used_at_once_the_next_time() {
    let home = Home::with_key();
    home.make_key("other", "ecdsa", "");
    home.authorize(&["other"]);
    let server = Server::start(&home);
    let agent = Agent::start(&home);
    agent.add(&home.path("other"));
    for asked in [true, false] {
        let mut command = home.exec(["-v", &server.target(), "true"]);
        let done = run({
            command.env("SSH_AUTH_SOCK", &agent.socket);
            command
        });
        assert_eq!(done.err().contains("asked about"), asked, "{}", done.err());
        done.ended(0);
    }
}

#[test]
fn when_the_remembered_key_is_out_another_is_found_and_no_stdin_is_lost() {
    let (home, server) = remembering();
    home.authorize(&[".ssh/id_ed25519"]);
    let bytes = pattern(3 << 20);
    let done = run_with(home.exec([&server.target(), text(&odd_child()), "echo"]), &bytes).ended(0);
    assert!(done.stdout == bytes, "{} bytes came back", done.stdout.len());
    // And that one is remembered now.
    let done = run(home.exec(["-v", &server.target(), "true"])).ended(0);
    assert!(!done.err().contains("asked about") && done.err().contains("id_ed25519)"), "{}", done.err());
}

#[test]
fn when_no_key_is_good_any_more_the_command_runs_nowhere() {
    let (home, server) = remembering();
    home.authorize(&[]);
    let mark = home.path("mark");
    let line = format!("touch {}", text(&mark));
    run(home.exec([&server.target(), &line])).ended(195);
    assert!(!mark.exists());
}

#[test]
fn more_than_eight_keys_are_not_all_offered() {
    let home = Home::empty();
    let server = Server::start(&home);
    let agent = Agent::start(&home);
    let names: Vec<String> = (0..9).map(|number| format!("key{number}")).collect();
    for name in &names {
        agent.add(&home.make_key(name, "ed25519", ""));
    }
    home.authorize(&["key8"]);
    let mut command = home.exec(["-v", &server.target(), "true"]);
    command.env("SSH_AUTH_SOCK", &agent.socket);
    let done = run(command).ended(195);
    assert!(done.err().contains("asked about 8 keys"), "{}", done.err());
    // Whoever has so many is told what to do about it.
    assert!(done.err().contains("--identity"), "{}", done.err());
    let key8 = home.path("key8");
    let mut command = home.exec(["-i", text(&key8), &server.target(), "true"]);
    command.env("SSH_AUTH_SOCK", &agent.socket);
    run(command).ended(0);
}

#[test]
fn a_public_key_file_picks_a_key_of_the_agent() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let key = home.make_key("other", "ed25519", "");
    home.authorize(&["other"]);
    let public = format!("{}.pub", text(&key));
    run(home.exec(["-i", &public, &server.target(), "true"])).complained(
        193,
        "remora: usage: ",
        "no agent holds",
    );
    let agent = Agent::start(&home);
    agent.add(&key);
    std::fs::remove_file(&key).unwrap();
    let mut command = home.exec(["-i", &public, &server.target(), "true"]);
    command.env("SSH_AUTH_SOCK", &agent.socket);
    run(command).ended(0);
}
