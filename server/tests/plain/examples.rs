//! The twenty-line clients of examples/plain, against this server.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::{Server, scratch};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/plain").join(name)
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"))
}

fn python(name: &str, arguments: &[&str]) -> Output {
    let path = example(name);
    run("python3", &[&[path.to_str().unwrap()], arguments].concat())
}

#[track_caller]
fn prints(output: &Output, stdout: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{stderr}");
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn raw_clients_in_python_and_bash() {
    let server = Server::start("raw");
    let port = server.address.port().to_string();
    prints(&python("raw_client.py", &[&port, "echo out; sleep 0.1; echo err >&2"]), "out\nerr\n");
    prints(&python("raw_client.py", &["--guess", &port, "echo one"]), "one\n");
    // The guess is wrong where a command pauses: the wire is there to show it.
    let folder = scratch();
    let fifo = folder.path().join("fifo");
    let command = format!("mkfifo {0}; echo one; cat {0}", fifo.display());
    prints(&python("raw_client.py", &["--guess", &port, &command]), "one\n");
    std::fs::write(&fifo, "two").unwrap();
    let script = example("raw_client.sh");
    prints(&run("bash", &[script.to_str().unwrap(), &port, "echo a; echo b"]), "a\nb\n");
}

#[test]
fn length_clients_in_python_and_c() {
    let server = Server::start("length");
    let port = server.address.port().to_string();
    prints(&python("length_client.py", &[&port, "echo one", "true", "echo two"]), "one\ntwo\n");
    let large = python("length_client.py", &[&port, "seq 1 300000"]);
    assert_eq!(large.stdout, (1..=300_000).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
    let folder = scratch();
    let program = folder.path().join("length_client");
    let source = example("length_client.c");
    let built = run("cc", &["-o", program.to_str().unwrap(), source.to_str().unwrap()]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    prints(&run(program.to_str().unwrap(), &[&port, "echo from C; head -c 0 /dev/null"]), "from C\n");
}

#[test]
fn a_header_client_in_python() {
    let server = Server::start("header");
    let port = server.address.port().to_string();
    prints(&python("header_client.py", &[&port, "echo one", "echo two"]), "one\ntwo\n");
    let output = python("header_client.py", &[&port, "echo out; echo err >&2; exit 5"]);
    assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(output.status.code(), Some(5));
}
