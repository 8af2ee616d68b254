//! A client that has not seen a receipt that matches never reports success.

use remora_client::{Class, JobError, Outcome, Stream, outcome_of, proto};
use remora_wire::native::Kind;

use crate::foe::{Foe, end, ends, frame, output, receipt};

#[tokio::test]
async fn a_receipt_that_matches_is_believed() {
    let (mut foe, _connection, job) = Foe::with_job().await;
    foe.say(&output(b"out", b"err")).await;
    foe.say(&frame(Kind::Receipt, 1, &receipt(b"out", b"err"))).await;
    let (result, out, err) = end(job).await;
    assert_eq!(outcome_of(&result.unwrap().receipt), Outcome::Exited(0));
    assert_eq!((out.as_slice(), err.as_slice()), (b"out".as_slice(), b"err".as_slice()));
}

#[tokio::test]
async fn a_receipt_that_does_not_match_what_came_is_an_error() {
    let without = proto::Receipt { stdout: None, ..receipt(b"", b"err") };
    let no_digest = {
        let mut receipt = receipt(b"out", b"err");
        receipt.stdout.as_mut().unwrap().blake3.clear();
        receipt
    };
    for (what, receipt, stream) in [
        ("other bytes", receipt(b"OUT", b"err"), Stream::Stdout),
        ("more bytes", receipt(b"out and more", b"err"), Stream::Stdout),
        ("fewer bytes", receipt(b"ou", b"err"), Stream::Stdout),
        ("other bytes on stderr", receipt(b"out", b"ERR"), Stream::Stderr),
        ("no report", without, Stream::Stdout),
        ("no digest", no_digest, Stream::Stdout),
    ] {
        let (mut foe, _connection, job) = Foe::with_job().await;
        foe.say(&output(b"out", b"err")).await;
        foe.say(&frame(Kind::Receipt, 1, &receipt)).await;
        let (result, ..) = end(job).await;
        match result {
            Err(JobError::Mismatch { stream: told, received: 3, .. }) => assert_eq!(told, stream, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_this_side_closed_is_told_as_unchecked() {
    let (mut foe, _connection, mut job) = Foe::with_job().await;
    drop(job.stdout());
    foe.wait_for(Kind::Stop).await;
    foe.say(&output(b"cut", b"")).await;
    foe.say(&frame(Kind::Receipt, 1, &receipt(b"whatever", b""))).await;
    let finished = job.wait().await.unwrap();
    assert_eq!(finished.unchecked, [Stream::Stdout]);
}

#[tokio::test]
async fn a_connection_that_ends_before_the_receipt_is_a_lost_job() {
    let all = [output(b"out", b"err"), frame(Kind::Receipt, 1, &receipt(b"out", b"err"))].concat();
    // Wherever it is cut, however little is missing.
    for cut in (0..all.len()).step_by(7).chain([all.len() - 1]) {
        let (mut foe, _connection, job) = Foe::with_job().await;
        foe.say(&all[..cut]).await;
        drop(foe);
        let (result, ..) = end(job).await;
        assert!(matches!(result, Err(JobError::Lost(_))), "{cut}: {result:?}");
    }
}

#[tokio::test]
async fn every_split_of_the_bytes_gives_the_same_result() {
    let all = [output(b"out", b"err"), frame(Kind::Receipt, 1, &receipt(b"out", b"err"))].concat();
    for size in [1, 2, 3, 5, 8, 9, 17, 100] {
        let (mut foe, _connection, job) = Foe::with_job().await;
        let feed = async {
            for chunk in all.chunks(size) {
                foe.say(chunk).await;
                tokio::task::yield_now().await;
            }
        };
        let (((result, out, err), ()), _) = (tokio::join!(end(job), feed), ());
        assert!(result.is_ok(), "{size}: {result:?}");
        assert_eq!((out.as_slice(), err.as_slice()), (b"out".as_slice(), b"err".as_slice()));
    }
}

#[tokio::test]
async fn a_receipt_of_what_was_not_started_needs_no_ends() {
    let (mut foe, _connection, job) = Foe::with_job().await;
    let why =
        proto::NotStarted { class: proto::NotStartedClass::Refused as i32, ..proto::NotStarted::default() };
    let outcome = Some(proto::receipt::Outcome::NotStarted(why));
    foe.say(&frame(Kind::Receipt, 1, &proto::Receipt { outcome, ..proto::Receipt::default() })).await;
    let (result, ..) = end(job).await;
    assert_eq!(outcome_of(&result.unwrap().receipt), Outcome::Failed(Class::Refused));
}

#[tokio::test]
async fn a_not_started_receipt_behind_output_is_no_match() {
    let (mut foe, _connection, job) = Foe::with_job().await;
    foe.say(&output(b"out", b"")).await;
    let why =
        proto::NotStarted { class: proto::NotStartedClass::NotFound as i32, ..proto::NotStarted::default() };
    let outcome = Some(proto::receipt::Outcome::NotStarted(why));
    foe.say(&frame(Kind::Receipt, 1, &proto::Receipt { outcome, ..proto::Receipt::default() })).await;
    let (result, ..) = end(job).await;
    assert!(matches!(result, Err(JobError::Mismatch { .. })), "{result:?}");
}

#[tokio::test]
async fn a_job_that_is_lost_ends_its_streams_without_an_end_of_their_own() {
    let (mut foe, connection, job) = Foe::with_job().await;
    foe.say(&ends(Stream::Stdout, 0)).await;
    drop(foe);
    assert!(end(job).await.0.is_err());
    assert!(connection.start([8; 16], remora_client::Request::line("x")).is_err());
}
