//! Agents that answer with nonsense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::time::Duration;

use remora_identity::PrivateKey;
use remora_net::agent::{Agent, AgentError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// An agent that gives one answer, to the letter, and keeps the connection open or not.
async fn ask(answer: Vec<u8>, stays: bool) -> [Result<(), AgentError>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let served = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer).await;
            if stays {
                kept.push(stream);
            }
        }
    });
    let agent = Agent::at(&path);
    let key = PrivateKey::generate_ed25519().unwrap();
    let listed = agent.identities().await.map(|_| ());
    let signed = agent.sign(key.public(), b"x").await.map(|_| ());
    served.abort();
    [listed, signed]
}

fn framed(body: &[u8]) -> Vec<u8> {
    [(body.len() as u32).to_be_bytes().as_slice(), body].concat()
}

#[tokio::test]
async fn an_answer_of_four_gibibytes_is_refused_before_it_is_waited_for() {
    for length in [u32::MAX, 1 << 30, 256 * 1024 + 1] {
        let asked = ask(length.to_be_bytes().to_vec(), true);
        let [listed, signed] = tokio::time::timeout(Duration::from_secs(4), asked).await.expect("at once");
        assert!(matches!(listed, Err(AgentError::Answer { .. })), "{listed:?}");
        assert!(matches!(signed, Err(AgentError::Answer { .. })), "{signed:?}");
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_error() {
    for body in [
        &b""[..],
        &[5],
        &[12],
        &[12, 0xff, 0xff, 0xff, 0xff],
        &[12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[14, 0xff, 0xff, 0xff, 0xff],
        &[14],
        &[99, 0, 0, 0, 0],
    ] {
        for result in ask(framed(body), false).await {
            assert!(result.is_err(), "{body:?}");
        }
    }
}

#[tokio::test]
async fn an_agent_that_hangs_up_is_an_error() {
    for answer in [Vec::new(), vec![0, 0], framed(&[12, 0, 0])[..5].to_vec()] {
        for result in ask(answer, false).await {
            assert!(matches!(result, Err(AgentError::Io { .. })), "{result:?}");
        }
    }
}

#[tokio::test]
async fn no_agent_is_an_error() {
    let agent = Agent::at("/nonexistent/agent\x1b[2J");
    let error = agent.identities().await.unwrap_err();
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
}
