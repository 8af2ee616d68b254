//! Jobs on a terminal of their own.

use std::time::Duration;

use bytes::Bytes;
use remora_engine::{EndReason, How, JobRequest, Limits, Outcome, Output, Signal, Terminal, WindowSize};
use remora_testkit::eventually_async;

use crate::common::{Host, PATIENCE, Running, quick};

fn on_terminal(line: &str, terminal: Terminal) -> JobRequest {
    JobRequest { terminal: Some(terminal), ..JobRequest::line(line) }
}

fn sized(rows: u16, columns: u16) -> Terminal {
    Terminal { size: WindowSize { rows, columns, ..WindowSize::default() }, ..Terminal::default() }
}

/// With and without a leader.
fn both(terminal: &Terminal) -> [Terminal; 2] {
    [false, true].map(|job_control| Terminal { job_control, ..terminal.clone() })
}

/// Without echo and without the translation of line ends, so that what is printed comes as it is.
fn plain() -> Terminal {
    Terminal { modes: vec![(53, 0), (72, 0)], ..sized(24, 80) }
}

fn start(host: &Host, line: &str, terminal: Terminal) -> Running {
    host.start(on_terminal(line, terminal), Limits::default()).unwrap()
}

async fn text(host: &Host, line: &str, terminal: Terminal) -> String {
    let done = start(host, line, terminal).collect().await;
    assert_eq!(done.ended.stderr.length, 0);
    assert!(!done.ended.stdout.held_open, "{:?}", done.ended);
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn it_is_the_controlling_terminal_of_the_session_and_all_three_streams() {
    let host = Host::new(quick());
    for terminal in both(&plain()) {
        let line = "for fd in 0 1 2; do test -t $fd && echo $fd; done; echo own > /dev/tty; tty";
        let said = text(&host, line, terminal).await;
        let (streams, tty) = said.split_at(said.find("/dev").unwrap());
        assert_eq!(streams, "0\n1\n2\nown\n");
        assert!(tty.starts_with("/dev/pts/"), "{tty}");
    }
    // A job without one has none at all, not even the one of whoever started the engine.
    let done = host.run(JobRequest::line("(: < /dev/tty) 2> /dev/null || echo none")).await;
    assert_eq!(done.text(), "none\n");
}

#[tokio::test]
async fn what_is_printed_on_either_stream_comes_in_its_true_order_as_one() {
    let host = Host::new(quick());
    let line = "for n in 1 2 3; do echo out $n; echo err $n >&2; done";
    assert_eq!(
        text(&host, line, sized(24, 80)).await,
        "out 1\r\nerr 1\r\nout 2\r\nerr 2\r\nout 3\r\nerr 3\r\n"
    );
}

#[tokio::test]
async fn any_size_arrives_and_so_does_another() {
    let host = Host::new(quick());
    for (rows, columns) in [(0, 0), (1, 1), (24, 80), (65535, 65535)] {
        assert_eq!(
            text(&host, "stty size", Terminal { size: sized(rows, columns).size, ..plain() }).await,
            format!("{rows} {columns}\n")
        );
    }
    let job = start(&host, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done", plain());
    let said = job.expect(b"ready\n").await;
    job.job.resize(WindowSize { rows: 50, columns: 132, ..WindowSize::default() });
    let done = job.collect_after(said).await;
    assert_eq!(done.text(), "ready\n50 132\n");
    // After the end nobody is there to be told.
}

#[tokio::test]
async fn modes_arrive() {
    let host = Host::new(quick());
    // Erase is ^H, interrupt is none, no flow control, no echo, 9600 baud, and an opcode that nobody knows.
    let modes = vec![(3, 8), (1, 255), (38, 0), (53, 0), (128, 9600), (129, 9600), (200, 1)];
    let said = text(&host, "stty -a", Terminal { modes, ..sized(24, 80) }).await;
    for part in
        ["erase = ^H;", "intr = <undef>;", " -ixon ", " -echo ", "speed 9600 baud", "quit = ^\\;", " icanon "]
    {
        assert!(said.replace("\r\n", " ").contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn characters_are_signals_and_the_end_of_input() {
    let host = Host::new(quick());
    let job = start(&host, "trap 'echo got INT' INT; echo ready; cat; echo end; sleep 1000", plain());
    let mut said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"a line\nhalf")).unwrap();
    job.job.end_input(11).unwrap();
    eventually_async(PATIENCE, "the input ended", || {
        job.take(Output::Stdout, &mut said);
        said == b"ready\na line\nhalfend\n"
    })
    .await;
    job.job.signal(Signal::HUP);
    assert!(matches!(job.collect_after(said).await.ended.how, How::Signaled { signal: Signal::HUP, .. }));

    let job = start(&host, "echo ready; exec sleep 1000", plain());
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"\x03")).unwrap();
    let done = job.collect_after(said).await;
    assert!(
        matches!(done.outcome(), Outcome::Signaled { signal: Signal::INT, by: None, .. }),
        "{:?}",
        done.ended
    );
}

#[tokio::test]
async fn a_mebibyte_is_pasted_into_a_slow_reader_and_echoed_without_a_deadlock() {
    let host = Host::new(quick());
    for terminal in both(&sized(24, 80)) {
        paste(&host, terminal).await;
    }
}

async fn paste(host: &Host, terminal: Terminal) {
    // Whole lines: a terminal hands over no other.
    const LENGTH: usize = 72 * 14_564;
    let paste: Vec<u8> =
        (0..LENGTH).map(|index| if index % 72 == 71 { b'\n' } else { b'a' + (index % 26) as u8 }).collect();
    let job = start(host, "echo ready; sleep 0.2; head -c 1048608 | sha256sum", terminal);
    let mut said = job.expect(b"ready\r\n").await;
    let mut sent = 0;
    let mut bell = 0;
    while job.job.finished().is_none() {
        let room = usize::try_from(job.job.input_limit()).unwrap().min(LENGTH);
        if room > sent {
            job.job.write(sent as u64, Bytes::copy_from_slice(&paste[sent..room])).unwrap();
            sent = room;
        }
        job.take(Output::Stdout, &mut said);
        let _ = tokio::time::timeout(Duration::from_millis(50), job.bell.notified()).await;
        bell += 1;
        assert!(bell < 5_000, "{sent} bytes sent, {} came back", said.len());
    }
    job.take(Output::Stdout, &mut said);
    let said = String::from_utf8_lossy(&said);
    let digest = sha256(&paste);
    assert!(said.contains(&digest), "{} bytes: …{}", said.len(), &said[said.len().saturating_sub(200)..]);
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_last_words_before_the_end_are_whole() {
    let host = Host::new(quick());
    for terminal in both(&plain()) {
        for _ in 0..20 {
            let said = text(&host, "seq 1 5000", terminal.clone()).await;
            assert_eq!(said.lines().count(), 5000);
            assert!(said.ends_with("4999\n5000\n"));
        }
    }
}

#[tokio::test]
async fn a_flood_ends_by_a_character() {
    let host = Host::new(quick());
    let job = start(&host, "exec yes", plain());
    let mut said = Vec::new();
    eventually_async(PATIENCE, "it floods", || {
        job.take(Output::Stdout, &mut said);
        said.len() > 1 << 20
    })
    .await;
    job.job.write(0, Bytes::from_static(b"\x03")).unwrap();
    let done = job.collect_after(said).await;
    assert!(matches!(done.outcome(), Outcome::Signaled { signal: Signal::INT, .. }), "{:?}", done.ended);
}

#[tokio::test]
async fn its_end_hangs_up_who_is_left_on_it() {
    let host = Host::new(quick());
    for terminal in both(&plain()) {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let line = format!(
            "(trap 'echo hup > {0}; exit' HUP; echo > {0}.ready; while :; do sleep 0.05; done) & while [ ! -e {0}.ready ]; do sleep 0.02; done; exit 3",
            mark.display()
        );
        let done = start(&host, &line, terminal).collect().await;
        assert_eq!(done.outcome(), Outcome::Exited(3));
        assert!(!done.ended.stdout.held_open);
        // In the foreground group as the shell has no job control: the kernel tells it.
        eventually_async(PATIENCE, "it is told", || {
            std::fs::read_to_string(&mark).is_ok_and(|text| text == "hup\n")
        })
        .await;
    }
}

#[tokio::test]
async fn output_stops_and_goes_on_by_a_character() {
    let host = Host::new(quick());
    for terminal in both(&plain()) {
        let job = start(&host, "echo ready; while read x; do echo got $x; done", terminal);
        let mut said = job.expect(b"ready\n").await;
        job.job.write(0, Bytes::from_static(b"\x13one\ntwo\n")).unwrap();
        // What doesn't come can't be waited for: long enough that it would have come.
        tokio::time::sleep(Duration::from_millis(200)).await;
        job.take(Output::Stdout, &mut said);
        assert_eq!(said, b"ready\n");
        assert_eq!(job.job.input_consumed(), 9);
        job.job.write(9, Bytes::from_static(b"\x11")).unwrap();
        eventually_async(PATIENCE, "it goes on", || {
            job.take(Output::Stdout, &mut said);
            said == b"ready\ngot one\ngot two\n"
        })
        .await;
        // A job whose output is stopped can be ended all the same.
        job.job.write(10, Bytes::from_static(b"\x13three\n")).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        job.job.close(EndReason::Stop);
        let done = job.collect_after(said).await;
        assert!(
            matches!(done.outcome(), Outcome::Signaled { by: Some(EndReason::Stop), .. }),
            "{:?}",
            done.ended
        );
    }
}

#[tokio::test]
async fn a_login_shell_knows_that_it_is_one() {
    let host = Host::new(quick());
    let request = JobRequest {
        terminal: Some(plain()),
        shell: Some("/bin/bash".into()),
        ..JobRequest::new(remora_engine::Program::LoginShell)
    };
    let job = host.start(request, Limits::default()).unwrap();
    let input = b"shopt -q login_shell && echo \"I am $0\"; exit 5\n";
    job.job.write(0, Bytes::from_static(input)).unwrap();
    let done = job.collect().await;
    assert_eq!(done.outcome(), Outcome::Exited(5));
    assert!(done.text().contains("I am -bash\n"), "{}", done.text());
}
