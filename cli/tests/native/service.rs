//! A server under a service manager, which is a socket here.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::bench::{Home, PATIENCE, Server, run};

/// The next message that the service manager gets.
fn told(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a message to the service manager");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn server(home: &Home, socket: &str) -> Server {
    home.make_key("host_key", "ed25519", "");
    let mut command = Server::command(home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0"]).env("NOTIFY_SOCKET", socket);
    let server = Server::spawn(home, command);
    home.write(".ssh/known_hosts", &server.known_line(home, "host_key"));
    server
}

fn goes_through_its_stages(home: &Home, manager: &UnixDatagram, name: &str) {
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut server = server(home, name);
    assert!(told(manager).starts_with("READY=1\n"));
    let done = run(home.exec([&server.target(), "env"])).ended(0);
    assert!(done.out().contains("HOME=") && !done.out().contains("NOTIFY"), "{}", done.out());
    server.signal("HUP");
    let reloading = told(manager);
    let clock = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(reloading.starts_with("RELOADING=1\n") && clock.parse::<u64>().unwrap() > 0, "{reloading}");
    assert!(told(manager).starts_with("READY=1\n"));
    server.signal("TERM");
    assert!(told(manager).starts_with("STOPPING=1\n"));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let home = Home::with_key();
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    goes_through_its_stages(&home, &manager, path.to_str().unwrap());
}

#[test]
fn the_service_manager_may_have_an_abstract_name() {
    let home = Home::with_key();
    let name = format!("remora-test-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    goes_through_its_stages(&home, &manager, &format!("@{name}"));
}

#[test]
fn the_unit_file_is_what_jobs_need_and_what_systemd_understands() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/remora.service");
    let unit = fs::read_to_string(path).unwrap();
    for line in
        ["Type=notify", "KillMode=process", "Delegate=yes", "Restart=on-failure", "OOMPolicy=continue"]
    {
        assert!(unit.lines().any(|had| had == line), "{line}");
    }
    let asked = std::process::Command::new("systemd-analyze").arg("--version").output();
    if asked.is_ok_and(|asked| asked.status.success()) {
        let home = Home::empty();
        // With the program that was just built: the installed one may not be there.
        let here = home.write("remora.service", &unit.replace("/usr/bin/remora", crate::bench::REMORA));
        let verified =
            std::process::Command::new("systemd-analyze").arg("verify").arg(here).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}
