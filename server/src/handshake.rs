//! A connection before its first job: TLS or the kernel's word, hello, offers, proof.

use std::sync::Arc;
use std::time::Duration;

use remora_identity::Authenticated;
use remora_identity::auth::AuthBinding;
use remora_identity::statement::ReceiptKey;
use remora_net::{ByteStream, Carrier, Link, LinkError, tls};
use remora_wire::limits;
use remora_wire::native::{ALPN, Fault, Greeting, Server, ServerEvent};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::debug;

use crate::admission::Place;
use crate::authenticate::{Binding, acceptable, judge};
use crate::serve::Phase;
use crate::settings::Settings;

/// The ALPN name that host keys are prepared for.
pub(crate) const PROTOCOL: &str = ALPN;
/// What the server says it is.
const SOFTWARE: &str = concat!("remora ", env!("CARGO_PKG_VERSION"));
/// How long a last word may take when the server stops.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why a connection never got as far as a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("no handshake within its time")]
    Stalled,
    #[error("this server has no host key for TLS")]
    NoHostKey,
    #[error(transparent)]
    Tls(#[from] tls::AcceptError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("too many failed attempts to authenticate")]
    TooManyAttempts,
    #[error("the server stops")]
    Stopping,
    #[error("no random bytes from the kernel")]
    Random,
    #[error("the client ended the connection: {0}")]
    Fault(String),
}

/// Serves a client over TLS.
pub(crate) async fn serve_tls(
    stream: impl ByteStream + 'static,
    peer: String,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) -> Result<(), HandshakeError> {
    let now = settings.borrow().clone();
    let keys = now.host_keys.as_ref().ok_or(HandshakeError::NoHostKey)?;
    let nonce = nonce()?;
    let mut end = Server::new(&greeting(&now, nonce));
    let hello = end.output().split();
    let handshake = timeout(now.handshake_timeout, tls::accept(stream, keys, &hello));
    let (carrier, host_key, exporter) = tokio::select! {
        handshake = handshake => handshake.map_err(|_| HandshakeError::Stalled)??,
        () = stopping(phase.clone()) => return Err(HandshakeError::Stopping),
    };
    let auth = AuthBinding::Tls { exporter };
    let binding = Binding { auth, nonce, host_key: host_key.public().blob().to_vec(), peer };
    serve_link(Link::new(carrier, end), binding, Some(host_key), settings, phase, place).await
}

/// Serves a client for whom the kernel vouches.
pub(crate) async fn serve_local(
    stream: impl ByteStream + 'static,
    peer_uid: u32,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) -> Result<(), HandshakeError> {
    let nonce = nonce()?;
    let end = Server::new(&greeting(&settings.borrow(), nonce));
    let auth = AuthBinding::Local { peer_uid };
    let binding = Binding { auth, nonce, host_key: Vec::new(), peer: format!("local uid {peer_uid}") };
    serve_link(Link::new(Carrier::clear(stream), end), binding, None, settings, phase, place).await
}

fn nonce() -> Result<[u8; limits::NONCE], HandshakeError> {
    let mut nonce = [0; limits::NONCE];
    let filled = rustix::rand::getrandom(nonce.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
    if filled == Ok(limits::NONCE) { Ok(nonce) } else { Err(HandshakeError::Random) }
}

fn greeting(settings: &Settings, nonce: [u8; limits::NONCE]) -> Greeting {
    Greeting {
        nonce,
        boot_id: settings.boot_id,
        epoch: settings.registry.epoch(),
        stdin_window: limits::WINDOW,
        max_jobs: limits::JOBS,
        software: SOFTWARE.to_owned(),
    }
}

async fn serve_link(
    mut link: Link<Server>,
    binding: Binding,
    host_key: Option<ReceiptKey>,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) -> Result<(), HandshakeError> {
    let who = tokio::select! {
        who = greet(&mut link, &binding, &settings) => who?,
        () = stopping(phase.clone()) => {
            // Nothing of theirs has run, and they should know.
            link.end.go_away("the server stops");
            let limit = settings.borrow().handshake_timeout.min(LAST_WORD);
            let _ = timeout(limit, link.flush()).await;
            return Err(HandshakeError::Stopping);
        }
    };
    place.known();
    link.release();
    crate::connection::serve(link, who, binding.peer, host_key, settings, phase).await;
    Ok(())
}

/// Ready when the server stops: who has proven nothing by then has nothing to finish, and must not hold it up.
async fn stopping(mut phase: watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase != Phase::Serving).await.is_err() {
        std::future::pending().await
    }
}

/// The phases before jobs: hello, offers, proof.
async fn greet(
    link: &mut Link<Server>,
    binding: &Binding,
    settings: &watch::Receiver<Arc<Settings>>,
) -> Result<Authenticated, HandshakeError> {
    let now = settings.borrow().clone();
    let late = Instant::now() + now.auth_timeout;
    let mut silent = Instant::now() + now.handshake_timeout;
    loop {
        // Before its hello a client has no reason to be slow; afterwards somebody may have to touch a key.
        let Ok(event) = timeout_at(silent.min(late), link.event()).await else {
            link.end.fail(&Fault::HandshakeTimeout);
            let _ = timeout(now.handshake_timeout, link.flush()).await;
            return Err(HandshakeError::Stalled);
        };
        match event {
            Ok(ServerEvent::Hello(hello)) => {
                debug!(peer = %binding.peer, software = %hello.software.escape_debug(), "hello");
                silent = late;
            }
            Ok(ServerEvent::Offer { keys, .. }) => link.end.reply_offer(acceptable(&now, &keys).await),
            Ok(ServerEvent::Authenticate { user, proof }) => {
                let floor = Instant::now() + now.auth_floor;
                if let Some(who) = judge(&now, binding, &user, &proof).await {
                    link.end.accept(&now.host_name);
                    return Ok(who);
                }
                // Unknown user, wrong key, bad signature: the same answer after the same time.
                sleep_until(floor).await;
                if !link.end.deny() {
                    let _ = timeout(now.handshake_timeout, link.flush()).await;
                    return Err(HandshakeError::TooManyAttempts);
                }
            }
            Ok(ServerEvent::Fault { code, text }) => {
                return Err(HandshakeError::Fault(format!("{code}: {}", text.escape_debug())));
            }
            Ok(_) => {}
            Err(error) => {
                // A fault is told to the client, if it still listens.
                let _ = timeout(now.handshake_timeout, link.flush()).await;
                return Err(error.into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
