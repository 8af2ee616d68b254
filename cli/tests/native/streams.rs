//! The bytes of a command's streams, both ways.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use remora_testkit::{Belongings, children, group_members, odd_child, pattern};

use crate::bench::{Client, Home, PATIENCE, Server, run, run_with, text};

#[test]
fn stdout_and_stderr_come_apart() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec([&server.target(), "echo out; echo err >&2; echo out; echo err >&2"])).ended(0);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("out\nout\n", "err\nerr\n"));
}

#[test]
fn every_byte_value_passes_both_ways() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let all: Vec<u8> = (0..=255).collect();
    let done = run_with(home.exec([&server.target(), "tee /dev/stderr"]), &all).ended(0);
    assert_eq!(done.stdout, all);
    assert_eq!(done.stderr, all);
}

#[test]
fn eight_mebibytes_pass_both_ways_unchanged() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let bytes = pattern(8 << 20);
    let done = run_with(home.exec([&server.target(), "cat"]), &bytes).ended(0);
    assert!(done.stdout == bytes, "{} bytes came back", done.stdout.len());
    assert_eq!(done.err(), "");
}

#[test]
fn two_floods_at_once_lose_nothing() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let line = format!("'{0}' flood 3000000 0 & '{0}' flood 0 3000000; wait", text(&child));
    let done = run(home.exec([&server.target(), &line])).ended(0);
    assert!(done.stdout == pattern(3_000_000) && done.stderr == pattern(3_000_000));
}

#[test]
fn the_end_of_stdin_reaches_the_command_which_goes_on() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run_with(home.exec([&server.target(), "wc -c; echo after; exit 5"]), b"12345").ended(5);
    assert_eq!(done.out(), "5\nafter\n");
}

#[test]
fn output_comes_before_the_command_ends() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut command = home.exec([&server.target(), "echo first; read line; echo \"second $line\""]);
    command.stdin(Stdio::piped());
    let mut client = Client::start(command);
    assert_eq!(client.line(), "first");
    client.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(client.finish().ended(0).out(), "second go\n");
}

#[test]
fn without_stdin_the_command_reads_nothing_and_neither_do_we() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"for the next one\n").unwrap();
    let mut command = home.exec(["-n", &server.target(), "readlink /proc/self/fd/0; wc -c"]);
    command.stdin(reader.try_clone().unwrap());
    assert_eq!(run(command).ended(0).out(), "/dev/null\n0\n");
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "for the next one\n");
}

#[test]
fn a_command_that_reads_no_more_does_not_hang_a_full_stdin() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run_with(home.exec([&server.target(), "head -c 3; exit 4"]), &pattern(4 << 20)).ended(4);
    assert_eq!(done.stdout, pattern(3));
}

#[test]
fn a_stdin_that_never_ends_does_not_hold_up_a_command_that_has_ended() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let (reader, _writer) = std::io::pipe().unwrap();
    let mut command = home.exec([&server.target(), "exit 6"]);
    command.stdin(reader);
    run(command).ended(6);
}

#[test]
fn a_broken_pipe_ends_quietly_with_the_commands_status() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut client = Client::start(home.exec([&server.target(), "yes"]));
    assert_eq!(client.line(), "y");
    drop(client.child.stdout.take());
    let done = client.finish().ended(141);
    assert_eq!(done.err(), "");
}

#[test]
fn a_closed_stdout_does_not_cut_stderr() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let line = format!("exec 3>&1; '{0}' flood 1000000 0; '{0}' flood 0 500000; exit 9", text(&child));
    let mut client = Client::start(home.exec([&server.target(), &line]));
    drop(client.child.stdout.take());
    let done = client.finish().ended(9);
    // The flood may say that its own stdout broke; what counts is the whole of the other stream.
    assert!(done.stderr.ends_with(&pattern(500_000)), "{} bytes", done.stderr.len());
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut command = home.exec([&server.target(), "echo lost"]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let done = run(command);
    assert_ne!(done.status, 0, "{}", done.err());
    assert!(done.err().contains("can't write standard output"), "{}", done.err());
}

#[test]
fn stdin_that_cannot_be_read_is_no_success() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut command = home.exec([&server.target(), "cat"]);
    command.stdin(std::fs::File::open("/").unwrap());
    let done = run(command);
    assert_ne!(done.status, 0, "{}", done.err());
    assert!(done.err().contains("can't read standard input"), "{}", done.err());
}

#[test]
fn a_background_process_that_holds_stdout_does_not_hold_up_the_client() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let before = Instant::now();
    // It holds the streams ten times as long as anything in this test may take.
    let done = run(home.exec([&server.target(), text(&child), "hold", "600000"])).ended(0);
    assert!(before.elapsed() < Duration::from_secs(600));
    let holder: i32 = done.out().trim().parse().unwrap();
    assert!(remora_testkit::is_alive(holder), "the background process lives on");
    crate::bench::signal(holder, "KILL");
}

#[test]
fn with_wait_streams_the_last_writer_is_waited_for() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let line = "(while [ -d . ] && [ ! -e go ]; do sleep 0.05; done; echo late) & echo early";
    let folder = home.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let mut client =
        Client::start(home.exec(["--wait-streams", "--cwd", text(&folder), &server.target(), line]));
    assert_eq!(client.line(), "early");
    std::fs::write(folder.join("go"), "").unwrap();
    assert_eq!(client.finish().ended(0).out(), "late\n");
}

#[test]
fn text_in_another_encoding_is_shown_as_utf_8_across_chunk_borders() {
    let home = Home::with_key();
    let server = Server::start(&home);
    // Written a byte at a time, so that characters are split wherever they can be.
    let script = "import sys,time\nfor b in sys.argv[1].encode(sys.argv[2]):\n os=sys.stdout.buffer; os.write(bytes([b])); os.flush(); time.sleep(0.002)";
    for (encoding, text) in
        [("gbk", "中文输出 abc"), ("shift_jis", "日本語テキスト"), ("latin1", "naïve café")]
    {
        let python = if encoding == "latin1" { "latin-1" } else { encoding };
        let done =
            run(home.exec(["--encoding", encoding, &server.target(), "python3", "-c", script, text, python]));
        assert_eq!(done.ended(0).out(), text);
    }
}

#[test]
fn nothing_of_a_command_is_left_behind_on_the_host() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.front())).unwrap().count();
    let jobs = || {
        std::fs::read_dir(home.path("state/jobs"))
            .unwrap()
            .flatten()
            .filter(|one| one.path().is_dir())
            .count()
    };
    let before = (open(), Belongings::of(server.pid()));
    for line in ["true", "exit 3", "kill -9 $$", "cat", "sleep 0.01 & wait", "yes | head -c 100000"] {
        run(home.exec([&server.target(), line]));
    }
    run(home.exec(["--timeout", "50ms", &server.target(), "sleep 1000"])).ended(124);
    run(home.exec(["--argv", &server.target(), "nonexistent"])).ended(127);
    let words = ["--no-reconnect", &server.target(), "echo $$; exec sleep 1000"];
    let mut client = Client::start(home.exec(words));
    let group = client.number();
    client.signal("KILL");
    client.finish();
    remora_testkit::eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    // A few keepers wait for the next commands, and each is a socket of the front.
    remora_testkit::eventually(PATIENCE, "no descriptor, process or folder is left", || {
        let processes = children(server.pid());
        let have_none =
            processes.iter().filter(|one| **one != server.front()).all(|one| children(*one).is_empty());
        open() <= before.0 + 4 && processes.len() <= 1 + 2 + 4 && have_none && jobs() == 0
    });
    before.1.assert_no_new_descriptor_of(server.pid(), PATIENCE);
}

#[test]
fn closed_standard_streams_are_no_reason_to_fail() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for target in ["local", &server.target()] {
        let mut command = home.remora_under("sh", &["-c", "\"$0\" \"$@\" <&- >&- 2>&-"]);
        command.args(["exec", target, "cat; echo out; echo err >&2; exit 3"]);
        run(command).ended(3);
    }
}

#[test]
fn a_reader_that_stalls_holds_the_command_back_in_bounded_memory() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mark = home.path("mark");
    let line = format!("echo $$; yes | head -c 400000000; touch {}", text(&mark));
    let mut client = Client::start(home.exec([&server.target(), &line]));
    let group = client.number();
    let peak = |pid: i32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Everything between is full once the command no longer gets on: its processor time stands still.
    let used = || -> u64 {
        let members = group_members(group);
        let stat = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let written =
            |text: &str| text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
        members.iter().filter_map(|pid| written(&stat(pid))).sum()
    };
    let mut before = u64::MAX;
    let mut still = 0;
    remora_testkit::eventually(PATIENCE, "the command is held back", || {
        let now = used();
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still > 100
    });
    assert!(!mark.exists());
    for (who, pid) in [("client", client.pid()), ("server", server.pid())] {
        assert!(peak(pid) < 100 * 1024, "the {who} took {} KiB", peak(pid));
    }
    drop(client.child.stdout.take());
    client.finish();
    remora_testkit::eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}
