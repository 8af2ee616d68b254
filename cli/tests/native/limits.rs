//! The limits of each job, from the configuration, and what is said of the one that was met.

use remora_testkit::{eventually, group_members, odd_child};

use crate::bench::{Client, Home, PATIENCE, Server, run, text};

fn limited(limits: &str) -> (Home, Server) {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let config = home.write("config.toml", &format!("[limits]\n{limits}\n"));
    let server = Server::start_with(&home, &["host_key"], &["--config", text(&config)]);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    (home, server)
}

#[test]
fn wall_time() {
    let (home, server) = limited("wall_seconds = 1");
    let mut client =
        Client::start(home.exec(["--timeout", "1h", &server.target(), "echo $$; sleep 1000 & sleep 1000"]));
    let group = client.number();
    client.finish().complained(124, &format!("remora: {}: deadline: ", server.target()), "time limit");
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

#[test]
fn open_files() {
    let (home, server) = limited("open_files = 40");
    assert_eq!(run(home.exec([&server.target(), "ulimit -Sn; ulimit -Hn"])).ended(0).out(), "40\n40\n");
}

#[test]
fn output() {
    let (home, server) = limited("output_bytes = 100000");
    let mut client = Client::start(home.exec([&server.target(), "echo $$; yes"]));
    let group = client.number();
    let done = client.finish();
    assert!(done.status > 128, "{done:?}");
    assert!(done.err().contains("limit: output"), "{}", done.err());
    assert!(done.stdout.len() <= 100_000, "{}", done.stdout.len());
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    run(home.exec([&server.target(), "head -c 90000 /dev/zero"])).ended(0);
}

#[test]
fn memory() {
    let (home, server) = limited("memory_bytes = 67108864");
    let child = odd_child();
    let done = run(home.exec(["--json", &server.target(), text(&child), "burn", "0", "512"]));
    assert!(done.status > 128, "{done:?}");
    let receipt: serde_json::Value = serde_json::from_str(&done.out()).unwrap();
    let by = receipt["memory_limit_by"].as_str().unwrap();
    assert!(["cgroup", "rlimit"].contains(&by), "{receipt}");
    if by == "cgroup" {
        assert_eq!(receipt["outcome"]["by"], "limit: memory", "{receipt}");
    }
    run(home.exec([&server.target(), text(&child), "burn", "0", "8"])).ended(0);
}
