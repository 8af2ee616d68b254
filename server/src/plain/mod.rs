//! The plain wires, served: requests without frames, run by `/bin/sh -c`, one at a time, in order.
//!
//! Who may connect is asked from the kernel ([`peer`]), since these wires carry no proof of their own, and what looks like a
//! browser is turned away. A reply that must be counted first waits in a [`spool`]. A connection may be idle, and a peer may
//! read as slowly as it likes: either costs a descriptor and bounded memory, and the end of the server ends both.

mod groups;
mod peer;
mod reply;
mod spool;
mod transcode;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use remora_engine::{Session, SessionError};
use remora_identity::{Authenticated, ForeignPeer, Refusal};
use remora_net::tune;
use remora_wire::limits;
use remora_wire::plain::{Wire, web_sign};
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::groups::Groups;
use crate::admission::Place;
use crate::listen::PlainWire;
use crate::serve::Phase;
use crate::settings::Settings;

/// How long a reply may still take once the server's grace time is over, and how long a closed connection is read from.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a peer isn't served.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the peer's address is not a loopback address")]
    NotLoopback,
    #[error("the kernel doesn't tell whose process the peer is")]
    Unknown,
    #[error("can't ask the kernel whose process the peer is")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Foreign(#[from] ForeignPeer),
    #[error("no session can be made")]
    Session(#[from] SessionError),
    #[error(transparent)]
    Policy(#[from] Refusal),
}

/// The connection is of no more use: reset, or given up.
#[derive(Debug)]
struct Gone;

/// What comes next on a connection.
enum Next {
    Request(Bytes),
    /// No more requests.
    End,
    Gone,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    wire: Wire,
    encoding: Option<&'static encoding_rs::Encoding>,
    who: Authenticated,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    input_ended: bool,
    groups: Groups,
    /// Where its requests run, one after the other: `cd` and `export` stay.
    session: Session,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    wire: PlainWire,
    encoding: Option<&'static encoding_rs::Encoding>,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) {
    if let Err(error) = tune(&stream) {
        warn!(%peer, %error, "socket options");
    }
    let now = settings.borrow().clone();
    let judged = async {
        let who = judge(&stream, peer, &now).await?;
        let session = now.engine.sessions().apart(now.policy.permit(&who, ())?)?;
        Ok::<_, Refused>((who, session))
    };
    let (who, session) = match judged.await {
        Ok(judged) => judged,
        Err(error) => {
            warn!(%peer, %wire, error = %crate::connection::chain(&error), "refused");
            return;
        }
    };
    place.known();
    debug!(%peer, %wire, authority = %who.authority(), "connected");
    let wire = match wire {
        PlainWire::Raw => Wire::Raw,
        PlainWire::Length => Wire::Length,
        PlainWire::Header => Wire::Header,
    };
    // UTF-8 to UTF-8 is what it is: bytes that aren't text stay themselves.
    let encoding = encoding.filter(|encoding| *encoding != encoding_rs::UTF_8);
    let mut connection = Connection {
        stream,
        peer,
        wire,
        encoding,
        who,
        settings,
        phase,
        input_ended: false,
        groups: Groups::default(),
        session,
    };
    let result = connection.run().await;
    let groups = std::mem::take(&mut connection.groups);
    match result {
        Ok(()) => connection.close().await,
        Err(Gone) => connection.reset(),
    }
    groups.end().await;
}

/// Who the peer is, or why it isn't served.
async fn judge(stream: &TcpStream, peer: SocketAddr, settings: &Settings) -> Result<Authenticated, Refused> {
    let served = settings.policy.served();
    if settings.plain_any_peer {
        return Ok(Authenticated::without_proof(served));
    }
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Refused::NotLoopback);
    }
    let uid = peer::uid(peer, stream.local_addr()?).await?.ok_or(Refused::Unknown)?;
    Ok(Authenticated::by_plain_peer_uid(uid, served)?)
}

impl Connection {
    async fn run(&mut self) -> Result<(), Gone> {
        loop {
            let request = match self.next().await {
                Next::Request(request) => request,
                Next::End => return Ok(()),
                Next::Gone => return Err(Gone),
            };
            if let Some(sign) = web_sign(&request) {
                warn!(peer = %self.peer, sign, "closed: a browser or its like");
                return Err(Gone);
            }
            self.answer(request).await?;
        }
    }

    /// One drained read: one read, and what is already waiting behind it.
    async fn next(&mut self) -> Next {
        if self.input_ended {
            return Next::End;
        }
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            () = leaves(&mut phase, Phase::Serving) => return Next::End,
            ready = self.stream.readable() => if ready.is_err() {
                return Next::Gone;
            },
        }
        let mut request = BytesMut::with_capacity(limits::PLAIN_REQUEST);
        loop {
            let room = limits::PLAIN_REQUEST - request.len();
            if room == 0 {
                return Next::Request(request.freeze());
            }
            match self.stream.try_read_buf(&mut (&mut request).limit(room)) {
                Ok(0) => {
                    self.input_ended = true;
                    return if request.is_empty() { Next::End } else { Next::Request(request.freeze()) };
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && request.is_empty() => {
                    let mut phase = self.phase.clone();
                    tokio::select! {
                        biased;
                        () = leaves(&mut phase, Phase::Serving) => return Next::End,
                        ready = self.stream.readable() => if ready.is_err() {
                            return Next::Gone;
                        },
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Next::Request(request.freeze());
                }
                Err(error) => {
                    info!(peer = %self.peer, %error, "connection lost");
                    return Next::Gone;
                }
            }
        }
    }

    /// Ends the connection so that what was sent arrives: while input is unread, close(2) sends a reset that overtakes it.
    async fn close(mut self) {
        debug!(peer = %self.peer, "closed");
        let _ = self.stream.shutdown().await;
        if self.input_ended {
            return;
        }
        let discard = async {
            let mut sink = [0; 4096];
            loop {
                let _ = self.stream.readable().await;
                match self.stream.try_read(&mut sink) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(count) if count > 0 => {}
                    _ => return,
                }
            }
        };
        let _ = timeout(FAREWELL, discard).await;
    }

    /// Ends the connection so that nobody takes what was sent for all of it.
    fn reset(self) {
        let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}

/// Ready when the server is past a phase.
async fn leaves(phase: &mut watch::Receiver<Phase>, past: Phase) {
    let left = phase.wait_for(|now| match past {
        Phase::Serving => *now != Phase::Serving,
        Phase::Draining => matches!(*now, Phase::Ending | Phase::Leaving),
        Phase::Ending | Phase::Leaving => false,
    });
    if left.await.is_err() {
        // Nobody will say any more.
        std::future::pending().await
    }
}
