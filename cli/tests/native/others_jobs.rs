//! Commands as others than their clients see them: what runs attached is waited for, signaled and stopped by its id; and what the host
//! says of one that is over is kept, signed.

use std::fs;

use remora_testkit::eventually;
use serde_json::Value;

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, text};
use crate::detached::{attached, detach, kill_front, server, target, verb};

/// A command that ends by SIGUSR1 with 4, and its id.
fn waiting(home: &Home) -> (Client, String) {
    let line = "trap 'echo told; exit 4' USR1; echo ready; while :; do sleep 0.02; done";
    let mut client = Client::start(home.exec([&target(home), line]));
    assert_eq!(client.line(), "ready");
    (client, attached(home, 6))
}

/// Waits for a command's end, and is heard by the host when this returns.
fn wait_for(home: &Home, server: &Server, id: &str) -> Client {
    let mut wait = home.remora();
    wait.args(["wait", "-v", &target(home), id]);
    let heard = || server.log().matches("authenticated").count();
    let before = heard();
    let waits = Client::start(wait);
    eventually(PATIENCE, "somebody who waits", || heard() > before);
    // Its question has come with its login, and is answered before what is asked behind it.
    verb(home, &["jobs"]).ended(0);
    waits
}

#[test]
fn an_attached_command_is_waited_for_signaled_and_stopped_by_its_id() {
    let home = Home::with_key();
    let server = server(&home);
    let (client, id) = waiting(&home);
    let waits = wait_for(&home, &server, &id);
    verb(&home, &["signal", &id[..8], "USR1"]).ended(0);
    assert_eq!(client.finish().ended(4).out(), "told\n");
    waits.finish().ended(4);
    // It is over, and its client has had all: nothing is left to ask for.
    verb(&home, &["signal", &id, "USR1"]).complained(196, "remora: unix:", "");

    let (client, id) = waiting(&home);
    let done = verb(&home, &["stop", &id]).ended(0);
    assert!(done.err().contains(&id[..12]) && done.err().contains("SIGTERM"), "{}", done.err());
    client.finish().complained(143, "remora: unix:", "stop");

    let (client, id) = waiting(&home);
    for words in [&["logs", &id] as &[&str], &["attach", &id]] {
        let done = verb(&home, words).complained(196, "remora: unix:", "the command is attached");
        assert!(done.err().contains(&format!("hint: remora detach {} {}", target(&home), &id[..12])));
    }
    verb(&home, &["forget", &id]).complained(196, "remora: unix:", "isn't detached");
    verb(&home, &["renew", &id]).complained(196, "remora: unix:", "isn't detached");
    // Who waits for one that is detached meanwhile waits on.
    let waits = wait_for(&home, &server, &id);
    verb(&home, &["detach", &id]).ended(0);
    client.finish().ended(198);
    verb(&home, &["signal", &id, "USR1"]).ended(0);
    waits.finish().ended(4);
}

fn receipt(home: &Home, words: &[&str]) -> Done {
    let mut command = home.remora();
    command.arg("receipt").args(words).current_dir(home.path(""));
    run(command)
}

#[test]
fn the_receipt_of_a_detached_command_is_signed_whenever_it_is_asked_for() {
    let home = Home::with_key();
    let server = server(&home);
    let wait = |at: &str, file: &str, id: &str| {
        let mut command = home.remora();
        command.args(["wait", "--receipt", text(&home.path(file)), at, id]);
        run(command)
    };
    let line = "yes | head -c 200000; echo late";
    let options = ["--detach", "--on-full", "kill", "--spool-limit", "64k"];
    let native = server.target();
    let exec = [&options as &[&str], &[&native, line]].concat();
    let id = run(home.exec(exec)).ended(0).out().trim_end().to_owned();
    let status = wait(&server.target(), "r1", &id).status;
    kill_front(&home, &server);
    // Another front has another port.
    let last = server.listening().into_iter().rev().find(|url| url.starts_with("native://")).unwrap();
    let at = last.trim_start_matches("native://").to_owned();
    let port = at.rsplit_once(':').unwrap().1;
    home.write(".ssh/known_hosts", &format!("[127.0.0.1]:{port} {}\n", home.public("host_key")));
    wait(&at, "r2", &id).ended(status);
    let statement = |file| home.text(file).split("-----BEGIN").next().unwrap().to_owned();
    assert_eq!(statement("r1"), statement("r2"));
    for line in [
        &format!("\njob {id}\n"),
        "\nline \"yes | head -c 200000; echo late\"\n",
        "\nended-by limit spool\n",
        "\nspool kill 65536 0 0 reached\n",
        "\nstdout 65536 ",
    ] {
        assert!(statement("r1").contains(line), "{line:?} in {}", statement("r1"));
    }
    let mut logs = home.remora();
    logs.args(["logs", "--stream", "stdout", &at, &id]);
    fs::write(home.path("out"), run(logs).ended(0).stdout).unwrap();
    let done = receipt(&home, &["verify", "r2", "--host", &at, "--stdout", "out"]).ended(0);
    assert_eq!(done.out().lines().count(), 2, "{}", done.out());
    let shown = receipt(&home, &["show", "r1"]).ended(0).out();
    assert!(shown.contains("the limit of 65536 bytes a stream was reached"), "{shown}");
    home.write("r3", &home.text("r2").replace("spool kill", "spool wait"));
    receipt(&home, &["verify", "r3"]).complained(1, "remora: ", "");
    // An attached one's, too.
    let mut client = Client::start(home.exec([&at, "echo ready; sleep 0.5; exit 6"]));
    assert_eq!(client.line(), "ready");
    let mut list = home.remora();
    list.args(["jobs", "--json", &at]);
    let list: Value = serde_json::from_str(&run(list).ended(0).out()).unwrap();
    let id = list["jobs"][0]["id"].as_str().unwrap().to_owned();
    wait(&at, "r5", &id).ended(6);
    client.finish().ended(6);
    assert!(statement("r5").contains("\noutcome exited 6\n"), "{}", statement("r5"));
    receipt(&home, &["verify", "r5"]).ended(0);
}

#[test]
fn where_no_host_key_was_shown_a_detached_commands_receipt_says_so() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &[], "exit 9");
    let done = verb(&home, &["wait", "--json", "--receipt", text(&home.path("r")), &id]).ended(9);
    assert!(done.err().contains("is not signed"), "{}", done.err());
    let object: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(
        (&object["receipt"]["signed"], &object["receipt"]["file"]),
        (&false.into(), &text(&home.path("r")).into())
    );
    assert!(home.text("r").contains("\nhost-key -\n") && home.text("r").contains("\noutcome exited 9\n"));
}

#[test]
fn a_command_that_nobody_is_connected_to_is_told_apart_and_kept_by_detaching_it() {
    let home = Home::with_key();
    let _server = server(&home);
    let (client, id) = waiting(&home);
    let attached = || verb(&home, &["jobs"]).ended(0).out();
    assert!(attached().contains(" attached "), "{}", attached());
    client.signal("KILL");
    client.finish();
    eventually(PATIENCE, "nobody is connected", || attached().contains(" alone, ends in "));
    verb(&home, &["detach", &id]).ended(0);
    assert!(attached().contains(" running "), "{}", attached());
    verb(&home, &["signal", &id, "USR1"]).ended(0);
    verb(&home, &["wait", &id]).ended(4);
}
