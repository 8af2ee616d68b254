//! What a server can do wrong on the wire: named to it, and never taken for a result.

use std::time::Duration;

use remora_client::{JobError, Request, SILENCE, Stream, VERDICT, proto};
use remora_net::LinkError;
use remora_wire::limits;
use remora_wire::native::Kind;
use tokio::time::timeout;

use crate::foe::{
    Foe, PATIENCE, accepted, data, end, ends, frame, header, hello, local, output, raw_frame, receipt,
};

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_told_and_not_believed() {
    let window = limits::WINDOW as usize;
    let beyond: Vec<u8> = (0..=window / limits::DATA_FRAME)
        .flat_map(|at| {
            let length = limits::DATA_FRAME.min(window + 1 - at * limits::DATA_FRAME);
            data(Stream::Stdout, (at * limits::DATA_FRAME) as u64, &vec![0; length])
        })
        .collect();
    let good = frame(Kind::Receipt, 1, &receipt(b"", b""));
    let credit = |consumed, limit| {
        let credit = proto::Credit { stream: proto::Stream::Stdin as i32, consumed, limit };
        frame(Kind::Credit, 1, &credit)
    };
    let no_outcome = proto::Receipt { outcome: None, ..receipt(b"", b"") };
    let wrong = [
        ("data behind the end", [ends(Stream::Stdout, 0), data(Stream::Stdout, 0, b"x")].concat(), 10),
        ("a second end", [ends(Stream::Stdout, 0), ends(Stream::Stdout, 0)].concat(), 10),
        ("an end elsewhere", ends(Stream::Stdout, 1), 9),
        ("a gap", data(Stream::Stdout, 1, b"x"), 9),
        ("the same bytes again", [data(Stream::Stderr, 0, b"x"), data(Stream::Stderr, 0, b"x")].concat(), 9),
        ("beyond the window", beyond, 8),
        ("credit that goes back", [credit(0, limits::WINDOW + 9), credit(0, 9)].concat(), 11),
        ("credit for what was not sent", credit(1, limits::WINDOW + 9), 11),
        ("a receipt before the ends", good.clone(), 12),
        ("a receipt between the ends", [ends(Stream::Stdout, 0), good].concat(), 12),
        ("no outcome", [output(b"", b""), frame(Kind::Receipt, 1, &no_outcome)].concat(), 12),
        ("a receipt of no job", frame(Kind::Receipt, 9, &receipt(b"", b"")), 5),
        ("a start of no job", frame(Kind::Started, 9, &proto::Started { pid: 1, stdin: None }), 5),
        ("data of no job", raw_frame(Kind::Stdout, 9, &[0; 9]), 5),
        ("stdin from the host", data(Stream::Stdin, 0, b"x"), 4),
        ("a job from the host", frame(Kind::Start, 2, &proto::Start::default()), 4),
        ("another hello", hello(), 4),
        ("another acceptance", accepted(), 4),
        ("an unknown kind", header(0, 0x7f, 0), 3),
        ("four gibibytes", header(u32::MAX, Kind::Receipt.code(), 1), 1),
        ("a frame too short", header(7, Kind::Stdout.code(), 1), 2),
        ("no message", raw_frame(Kind::Receipt, 1, b"\xff\xff"), 12),
    ];
    for (what, bytes, code) in wrong {
        let (mut foe, _connection, job) = Foe::with_job().await;
        foe.say(&bytes).await;
        let (result, ..) = end(job).await;
        assert!(matches!(result, Err(JobError::Lost(_))), "{what}: {result:?}");
        assert_eq!(timeout(PATIENCE, foe.fault()).await.expect(what), code, "{what}");
    }
}

#[tokio::test]
async fn a_job_is_nothing_before_the_user_is_accepted() {
    let (mut foe, theirs) = Foe::pair();
    foe.say(&hello()).await;
    let connection = local(theirs).await.unwrap().connection;
    let job = connection.start([7; 16], Request::line("x")).unwrap();
    foe.wait_for(Kind::Start).await;
    foe.say(&output(b"", b"")).await;
    assert_eq!(timeout(PATIENCE, foe.fault()).await.expect("a fault"), 4);
    assert!(end(job).await.0.is_err());
}

#[tokio::test]
async fn a_denied_user_has_no_job() {
    let (mut foe, theirs) = Foe::pair();
    foe.say(&hello()).await;
    let connection = local(theirs).await.unwrap().connection;
    let job = connection.start([7; 16], Request::line("x")).unwrap();
    foe.wait_for(Kind::Start).await;
    let denied = proto::AuthReply { accepted: false, attempts_left: 5, host_name: String::new() };
    foe.say(&frame(Kind::AuthReply, 0, &denied)).await;
    assert!(matches!(end(job).await.0, Err(JobError::Denied)));
    assert!(matches!(connection.accepted().await, Err(JobError::Denied)));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_never_comes_is_waited_for_so_long_and_no_longer() {
    let (mut foe, theirs) = Foe::pair();
    foe.say(&hello()).await;
    let connection = local(theirs).await.unwrap().connection;
    let _job = connection.start([7; 16], Request::line("x")).unwrap();
    foe.wait_for(Kind::Start).await;
    // The clock stands still, and leaps to the next timer whenever nobody has anything to do.
    let start = tokio::time::Instant::now();
    assert!(matches!(connection.accepted().await, Err(JobError::NoVerdict)));
    assert!((VERDICT..VERDICT + Duration::from_secs(1)).contains(&start.elapsed()), "{:?}", start.elapsed());
    // One that comes late is a verdict all the same, for whoever asks again.
    foe.say(&accepted()).await;
    assert_eq!(connection.accepted().await.unwrap(), "host");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_freezes_is_asked_and_then_given_up() {
    let (mut foe, _connection, job) = Foe::with_job().await;
    let start = tokio::time::Instant::now();
    // It answers once, and then no more.
    foe.wait_for(Kind::Ping).await;
    foe.say(&raw_frame(Kind::Pong, 0, &[0; 8])).await;
    let heard = start.elapsed();
    let Err(error @ JobError::Lost(_)) = job.wait().await else { panic!("not lost") };
    assert!(matches!(&error, JobError::Lost(link) if matches!(**link, LinkError::Silent(_))), "{error:?}");
    let silent = start.elapsed() - heard;
    assert!((SILENCE / 2..=SILENCE + Duration::from_millis(100)).contains(&silent), "{silent:?}");
}

#[tokio::test]
async fn what_a_host_says_is_escaped() {
    let (mut foe, connection, job) = Foe::with_job().await;
    let hostile = "\x1b]0;x\x07\u{9b}2J\n";
    foe.say(&frame(Kind::GoAway, 0, &proto::GoAway { text: hostile.to_owned() })).await;
    foe.say(&frame(Kind::Fault, 0, &proto::Fault { code: 77, text: hostile.to_owned() })).await;
    let Err(error @ JobError::Fault { code: 77, .. }) = end(job).await.0 else { panic!("no fault") };
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
    let error = connection.start([8; 16], Request::line("x")).err().unwrap();
    assert!(!format!("{error}").chars().any(char::is_control), "{error}");
}

#[tokio::test]
async fn a_host_that_goes_away_gets_no_new_job_and_ends_the_old_one() {
    let (mut foe, connection, job) = Foe::with_job().await;
    foe.say(&frame(Kind::GoAway, 0, &proto::GoAway { text: "bye".to_owned() })).await;
    foe.say(&output(b"out", b"")).await;
    foe.say(&frame(Kind::Receipt, 1, &receipt(b"out", b""))).await;
    assert!(end(job).await.0.is_ok());
    let error = connection.start([8; 16], Request::line("x")).err().unwrap();
    assert!(matches!(error, remora_client::StartError::GoingAway(_)), "{error}");
}

#[tokio::test]
async fn stdin_waits_in_bounded_memory_for_a_host_that_takes_none() {
    let (mut foe, theirs) = Foe::pair();
    let closed = proto::ServerHello { stdin_window: 0, ..crate::foe::server_hello() };
    foe.say(&frame(Kind::ServerHello, 0, &closed)).await;
    let connection = local(theirs).await.unwrap().connection;
    let mut job = connection.start([7; 16], Request { stdin: true, ..Request::line("x") }).unwrap();
    foe.say(&accepted()).await;
    let mut stdin = job.stdin().unwrap();
    let mut taken = 0;
    let chunk = bytes::Bytes::from(vec![0; 64 * 1024]);
    while let Ok(true) = timeout(std::time::Duration::from_millis(100), stdin.write(chunk.clone())).await {
        taken += chunk.len();
        assert!(taken <= 2 << 20, "it takes without end");
    }
    assert!(taken > 0);
}

#[tokio::test]
async fn a_job_more_than_the_host_allows_is_refused_here() {
    let (mut foe, theirs) = Foe::pair();
    let few = proto::ServerHello { max_jobs: 1, max_control: 100, ..crate::foe::server_hello() };
    foe.say(&frame(Kind::ServerHello, 0, &few)).await;
    let connection = local(theirs).await.unwrap().connection;
    let error = connection.start([1; 16], Request::line("x".repeat(100))).err().unwrap();
    assert!(error.to_string().contains("100"), "{error}");
    let _job = connection.start([1; 16], Request::line("x")).unwrap();
    assert!(connection.start([2; 16], Request::line("x")).is_err());
}
