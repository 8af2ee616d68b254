//! Jobs that outlive their connections: who gets at them, from where, how often, for how long.

use std::time::Duration;

use prost::Message;
use remora_identity::PrivateKey;
use remora_testkit::{eventually_async, group_members};
use remora_wire::native::{Kind, Piece, proto};
use tokio::time::timeout;

use crate::host::Host;
use crate::peer::{PATIENCE, Peer, Stream, data, start};

const MINUTE: u64 = 60_000;

/// A start whose job is kept for so long.
fn kept(host: &Host, line: &str, linger_ms: u64) -> proto::Start {
    proto::Start { linger_ms, ..start(&host.user, line) }
}

/// The same start, sent again on the `attempt`th connection, by a client that has received and consumed so much of stdout.
fn again(first: &proto::Start, epoch: &[u8], attempt: u32, received: u64, consumed: u64) -> proto::Start {
    let stdout = Some(proto::Position { received, consumed });
    let resume = proto::Resume { stdout, stderr: None, known: received > 0, attempt, stdin: None };
    proto::Start { resume: Some(resume), epoch: epoch.to_vec(), ..first.clone() }
}

async fn peer(host: &Host) -> Peer {
    Peer::accepted(host.stream().await, &host.user, &host.key).await
}

/// All of stdout up to the receipt, and the receipt.
async fn rest(peer: &mut Peer) -> (Vec<u8>, proto::Receipt) {
    let mut out = Vec::new();
    let read = async {
        loop {
            match peer.next().await.expect("a receipt") {
                Piece::Data { stream: Stream::Stdout, bytes, .. } => out.extend_from_slice(&bytes),
                Piece::Control { kind: Kind::Receipt, body, .. } => {
                    break proto::Receipt::decode(body).unwrap();
                }
                Piece::Control { kind: Kind::Fault, body, .. } => panic!("{:?}", proto::Fault::decode(body)),
                _ => {}
            }
        }
    };
    let receipt = timeout(PATIENCE, read).await.unwrap();
    (out, receipt)
}

fn refused(receipt: &proto::Receipt) -> proto::NotStartedClass {
    match &receipt.outcome {
        Some(proto::receipt::Outcome::NotStarted(why)) => why.class(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_receipt_that_is_lost_on_its_way_is_given_again_until_it_is_settled() {
    let host = Host::start().await;
    let first = kept(&host, "echo out; exit 3", MINUTE);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &first).await;
    let (out, receipt) = rest(&mut one).await;
    assert_eq!(out, b"out\n");
    drop(one);
    for attempt in 1..=2 {
        let mut next = peer(&host).await;
        next.send(Kind::Start, 5, &again(&first, &epoch, attempt, 2, 1)).await;
        let started: proto::Started = next.message_among(Kind::Started).await;
        assert_eq!(started.stdin.unwrap().received, 0);
        let (out, same) = rest(&mut next).await;
        assert_eq!((out.as_slice(), &same), (&b"t\n"[..], &receipt), "from where its client was");
    }
    let mut last = peer(&host).await;
    last.send(Kind::Settled, 0, &proto::Settled { job_id: first.job_id.clone() }).await;
    last.send(Kind::Start, 1, &again(&first, &epoch, 3, 2, 1)).await;
    assert_eq!(
        refused(&rest(&mut last).await.1),
        proto::NotStartedClass::Unknown,
        "it is forgotten, and not run anew"
    );
    host.stop().await;
}

#[tokio::test]
async fn who_is_not_its_owner_sees_nothing_of_a_job() {
    let host = Host::start().await;
    let other = PrivateKey::generate_ed25519().unwrap();
    let file = host.folder.path().join("authorized_keys");
    let keys = std::fs::read_to_string(&file).unwrap() + &other.public().to_text() + "\n";
    std::fs::write(&file, keys).unwrap();
    let first = kept(&host, "echo $$; exec sleep 1000", MINUTE);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &first).await;
    let started: proto::Started = one.message_among(Kind::Started).await;
    let mut foe = Peer::accepted(host.stream().await, &host.user, &other).await;
    // As of a job that never was.
    let absent = proto::Start { job_id: vec![1; 16], ..first.clone() };
    foe.send(Kind::Start, 1, &again(&absent, &epoch, 1, 1, 1)).await;
    let (_, never) = rest(&mut foe).await;
    foe.send(Kind::Start, 2, &again(&first, &epoch, 1, 1, 1)).await;
    let (out, his) = rest(&mut foe).await;
    assert_eq!((out.as_slice(), refused(&his)), (&b""[..], proto::NotStartedClass::Unknown));
    assert_eq!(his.outcome, never.outcome);
    // Nor can it settle it.
    foe.send(Kind::Settled, 0, &proto::Settled { job_id: first.job_id.clone() }).await;
    foe.send(Kind::Start, 3, &start(&host.user, "true")).await;
    rest(&mut foe).await;
    drop(one);
    let mut owner = peer(&host).await;
    owner.send(Kind::Start, 1, &again(&first, &epoch, 1, 0, 0)).await;
    let same: proto::Started = owner.message_among(Kind::Started).await;
    assert_eq!(same.pid, started.pid);
    owner.send(Kind::Close, 1, &proto::Close {}).await;
    rest(&mut owner).await;
    host.stop().await;
}

#[tokio::test]
async fn offsets_outside_the_window_and_other_requests_are_refused_and_the_job_goes_on() {
    let host = Host::start().await;
    let first = kept(&host, "echo 12345678; cat", MINUTE);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &first).await;
    one.message_among::<proto::Started>(Kind::Started).await;
    let Some(Piece::Data { .. }) = one.next().await else { panic!("no output") };
    let credit = proto::Credit { stream: proto::Stream::Stdout as i32, consumed: 4, limit: 1 << 21 };
    one.send(Kind::Credit, 1, &credit).await;
    one.send(Kind::Ping, 0, &proto::Close {}).await;
    drop(one);
    let mut next = peer(&host).await;
    // Where it was never, and where nothing is kept any more.
    for (channel, (received, consumed)) in (1..).zip([(10, 10), (1 << 40, 1 << 40), (3, 3)]) {
        next.send(Kind::Start, channel, &again(&first, &epoch, 1, received, consumed)).await;
        let (_, receipt) = rest(&mut next).await;
        assert_eq!(refused(&receipt), proto::NotStartedClass::Unknown, "{received}");
    }
    let other = kept(&host, "echo other", MINUTE);
    next.send(Kind::Start, 10, &again(&other, &epoch, 1, 4, 4)).await;
    assert_eq!(refused(&rest(&mut next).await.1), proto::NotStartedClass::Refused);
    next.send(Kind::Start, 11, &again(&first, &epoch, 1, 6, 5)).await;
    next.message_among::<proto::Started>(Kind::Started).await;
    next.send_bytes(&data(Stream::Stdin, 11, 0, b"end")).await;
    next.send(Kind::End, 11, &proto::End { stream: proto::Stream::Stdin as i32, length: 3 }).await;
    let (out, receipt) = rest(&mut next).await;
    assert_eq!(out, b"78\nend");
    assert_eq!(receipt.stdout.unwrap().length, 12);
    host.stop().await;
}

#[tokio::test]
async fn a_newer_connection_takes_a_job_from_an_older_one_and_never_the_reverse() {
    let host = Host::start().await;
    let first = kept(&host, "cat", MINUTE);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &first).await;
    one.message_among::<proto::Started>(Kind::Started).await;
    one.send_bytes(&data(Stream::Stdin, 1, 0, b"abc")).await;
    let Some(Piece::Data { .. }) = one.next().await else { panic!("no output") };
    let mut two = peer(&host).await;
    two.send(Kind::Start, 1, &again(&first, &epoch, 2, 1, 1)).await;
    let started: proto::Started = two.message_among(Kind::Started).await;
    assert_eq!(started.stdin.unwrap().received, 3, "its stdin goes on where it was");
    let told: proto::Detached = one.message_among(Kind::Detached).await;
    assert!(told.text.contains("another connection"), "{}", told.text);
    // What the older one still sends changes nothing, and its start again comes too late.
    one.send_bytes(&data(Stream::Stdin, 1, 3, b"xyz")).await;
    for (channel, start) in
        [(2, first.clone()), (3, again(&first, &epoch, 1, 1, 1)), (4, again(&first, &epoch, 2, 1, 1))]
    {
        one.send(Kind::Start, channel, &start).await;
        one.message_among::<proto::Detached>(Kind::Detached).await;
    }
    two.send_bytes(&data(Stream::Stdin, 1, 3, b"def")).await;
    two.send(Kind::End, 1, &proto::End { stream: proto::Stream::Stdin as i32, length: 6 }).await;
    assert_eq!(rest(&mut two).await.0, b"bcdef");
    host.stop().await;
}

#[tokio::test]
async fn a_job_that_nobody_comes_back_for_is_ended_and_says_why_to_who_comes_late() {
    let host = Host::start().await;
    let first = kept(&host, "echo kept; exec sleep 1000", 300);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &first).await;
    let started: proto::Started = one.message_among(Kind::Started).await;
    let Some(Piece::Data { .. }) = one.next().await else { panic!("no output") };
    drop(one);
    let group = i32::try_from(started.pid).unwrap();
    eventually_async(PATIENCE, "the group is gone", || group_members(group).is_empty()).await;
    let mut late = peer(&host).await;
    late.send(Kind::Start, 1, &again(&first, &epoch, 1, 2, 0)).await;
    let (out, receipt) = rest(&mut late).await;
    assert_eq!(out, b"pt\n", "what it had printed is all there");
    assert_eq!(receipt.ended_by(), proto::EndReason::Linger);
    host.stop().await;
}

#[tokio::test]
async fn who_leaves_leaves_nothing_behind_and_who_asks_for_no_lingering_neither() {
    let host = Host::start().await;
    for (linger, leaves) in [(MINUTE, true), (0, false)] {
        let mut one = peer(&host).await;
        one.send(Kind::Start, 1, &kept(&host, "exec sleep 1000", linger)).await;
        let started: proto::Started = one.message_among(Kind::Started).await;
        if leaves {
            one.send(Kind::Leave, 0, &proto::Leave {}).await;
        }
        drop(one);
        let group = i32::try_from(started.pid).unwrap();
        eventually_async(PATIENCE, "the group is gone", || group_members(group).is_empty()).await;
    }
    host.stop().await;
}

#[tokio::test]
async fn the_host_bounds_how_long_and_how_many_jobs_it_keeps() {
    let host = Host::start_with(|settings| {
        settings.max_linger = Duration::from_millis(300);
        settings.max_unattended = 2;
    })
    .await;
    let mut one = peer(&host).await;
    one.send(Kind::Start, 1, &kept(&host, "exec sleep 1000", u64::MAX)).await;
    let started: proto::Started = one.message_among(Kind::Started).await;
    drop(one);
    let group = i32::try_from(started.pid).unwrap();
    eventually_async(PATIENCE, "the group is gone", || group_members(group).is_empty()).await;
    host.stop().await;

    let host = Host::start_with(|settings| settings.max_unattended = 2).await;
    let mut groups = Vec::new();
    for id in 0..3 {
        let mut one = peer(&host).await;
        let start = proto::Start { job_id: vec![id; 16], ..kept(&host, "exec sleep 1000", MINUTE) };
        one.send(Kind::Start, 1, &start).await;
        let started: proto::Started = one.message_among(Kind::Started).await;
        groups.push(i32::try_from(started.pid).unwrap());
        drop(one);
        // The order in which they are lost is the order in which they go.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually_async(PATIENCE, "the oldest makes room", || group_members(groups[0]).is_empty()).await;
    assert!(groups[1..].iter().all(|group| !group_members(*group).is_empty()));
    // Those that nobody can come back to any more end with the server.
    host.stop().await;
    assert!(groups.iter().all(|group| group_members(*group).is_empty()));
}

#[tokio::test]
async fn a_start_of_another_time_of_the_host_is_not_run() {
    let host = Host::start().await;
    let mark = host.folder.path().join("mark");
    let first = kept(&host, &format!("touch {}", mark.display()), MINUTE);
    let mut one = peer(&host).await;
    let epoch = one.hello.epoch.clone();
    one.send(Kind::Start, 1, &again(&first, b"another time of it", 1, 0, 0)).await;
    assert_eq!(refused(&rest(&mut one).await.1), proto::NotStartedClass::Unknown);
    assert!(!mark.exists());
    // One that never arrived at this one is.
    one.send(Kind::Start, 2, &again(&first, &epoch, 1, 0, 0)).await;
    rest(&mut one).await;
    assert!(mark.exists());
    host.stop().await;
}
