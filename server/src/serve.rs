//! The accept loops, and the end of a server.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use remora_net::tune;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admission::{Admission, Place};
use crate::connection::chain;
use crate::detached;
use crate::handshake::{HandshakeError, serve_local, serve_tls};
use crate::listen::{ListenUrl, Listener, Socket};
use crate::plain;
use crate::settings::Settings;

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything is taken.
    Serving,
    /// No new connections and no new jobs; what runs may end.
    Draining,
    /// What still runs is ended.
    Ending,
    /// This server goes, and what runs stays with its keepers.
    Leaving,
}

/// Pause after an accept that failed for want of descriptors or memory: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections go on once their jobs are told to end: SIGTERM, 2 s later SIGKILL, 2 s for streams that something
/// else holds open, and the rest for the last words.
const FAREWELL: Duration = Duration::from_secs(6);

/// What the accept loops share.
#[derive(Clone)]
struct Shared {
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    admission: Admission,
}

/// Where to listen from now on.
pub struct ListenerChange {
    /// All of it, as it was asked for: a listener that isn't among these is closed.
    pub wanted: Vec<ListenUrl>,
    /// Those that are new.
    pub added: Vec<Listener>,
}

/// Serves until `shutdown` is ready, then lets jobs end for the grace time of the settings, or until `hurry` is ready, then ends
/// them. Returns when the last handler has ended; who takes no last words is cut off.
///
/// `changes` says where to listen, first and whenever that changes; no connection is dropped for it.
pub async fn serve(
    mut changes: tokio::sync::mpsc::Receiver<ListenerChange>,
    settings: watch::Receiver<Arc<Settings>>,
    shutdown: impl Future<Output = ()>,
    hurry: impl Future<Output = ()>,
) {
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let engine = settings.borrow().engine.clone();
    settings.borrow().registry.take_up();
    settings.borrow().detached.clone().take_up(&engine, &phase_seen);
    let collecting = tokio::spawn(detached::collect(settings.clone()));
    let shared = Shared { settings: settings.clone(), phase: phase_seen, admission: Admission::default() };
    let mut loops: Vec<(ListenUrl, tokio::task::JoinHandle<JoinSet<()>>, watch::Sender<bool>)> = Vec::new();
    let mut orphans: Vec<tokio::task::JoinHandle<JoinSet<()>>> = Vec::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(change) = changes.recv() => {
                let (keep, stop): (Vec<_>, Vec<_>) =
                    loops.drain(..).partition(|(url, ..)| change.wanted.contains(url));
                loops = keep;
                for (_, task, stopper) in stop {
                    let _ = stopper.send(true);
                    orphans.push(task);
                }
                for listener in change.added {
                    let (stopper, stopped) = watch::channel(false);
                    let asked = listener.asked.clone();
                    loops.push((asked, tokio::spawn(accept_loop(listener, shared.clone(), stopped)), stopper));
                }
            }
        }
    }
    let (grace, stop_jobs) = (settings.borrow().stop_grace, settings.borrow().stop_jobs);
    info!(connections = shared.admission.open(), "stopping");
    collecting.abort();
    // Accept loops end on this too; connections without jobs close at once.
    let is_left = !stop_jobs && engine.leave();
    let _ = phase.send(if is_left { Phase::Leaving } else { Phase::Draining });
    let registry = settings.borrow().registry.clone();
    if !is_left {
        registry.stop();
    }
    drop(shared);
    let mut handlers = Vec::new();
    for task in loops.into_iter().map(|(_, task, _)| task).chain(orphans) {
        handlers.extend(task.await.ok());
    }
    if is_left {
        let _ = timeout(FAREWELL, all_ended(&mut handlers)).await;
        return;
    }
    let in_time = tokio::select! {
        biased;
        () = all_ended(&mut handlers) => true,
        () = tokio::time::sleep(grace) => false,
        () = hurry => false,
    };
    if !in_time {
        info!("ending what still runs");
        let _ = phase.send(Phase::Ending);
        if timeout(FAREWELL, all_ended(&mut handlers)).await.is_err() {
            warn!(
                connections = handlers.iter().map(JoinSet::len).sum::<usize>(),
                "cut off: nobody takes their last words"
            );
        }
    }
    // A handler that still runs is aborted here, and kills what it has left.
    drop(handlers);
    registry.clear();
    // Nor have those that were found, and that nobody came back for.
    let _ = phase.send(Phase::Ending);
    // Jobs of clients that vanished have no handler any more, but they do have a process.
    while engine.running() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn all_ended(handlers: &mut [JoinSet<()>]) {
    for handlers in handlers {
        while handlers.join_next().await.is_some() {}
    }
}

async fn accept_loop(listener: Listener, shared: Shared, mut stopped: watch::Receiver<bool>) -> JoinSet<()> {
    let mut handlers = JoinSet::new();
    let mut phase = shared.phase.clone();
    let mut reserve = File::open("/dev/null").ok();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => break,
            _ = phase.changed() => break,
            Some(_) = handlers.join_next(), if !handlers.is_empty() => continue,
            accepted = accept(&listener.socket) => accepted,
        };
        match accepted {
            Ok(stream) => admit(stream, &listener, &shared, &mut handlers),
            Err(error) => {
                // The peer's own early reset is no reason to pause (accept(2), ECONNABORTED; PITFALLS 17).
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    warn!(url = %listener.url, %error, "can't accept");
                    // Who waits would wait for as long as the others run: the one in reserve is enough to turn it away.
                    let was_there = reserve.take().is_some();
                    let turned_away =
                        timeout(Duration::ZERO, accept(&listener.socket)).await.is_ok_and(|it| it.is_ok());
                    reserve = File::open("/dev/null").ok();
                    if !(was_there && turned_away) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
    handlers
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

async fn accept(socket: &Socket) -> io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
        Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

fn admit(accepted: Accepted, listener: &Listener, shared: &Shared, handlers: &mut JoinSet<()>) {
    let (max_connections, max_strangers) = {
        let settings = shared.settings.borrow();
        (settings.max_connections, settings.max_unauthenticated)
    };
    let Some(place) = shared.admission.admit(max_connections) else {
        warn!(url = %listener.url, max_connections, "connection refused: too many are open");
        return;
    };
    let id = place.id();
    let (settings, phase) = (shared.settings.clone(), shared.phase.clone());
    let task = match (accepted, &listener.url) {
        (Accepted::Tcp(stream, peer), ListenUrl::Plain { wire, encoding, .. }) => {
            let (wire, encoding) = (*wire, *encoding);
            handlers.spawn(plain::serve(stream, peer, wire, encoding, settings, phase, place))
        }
        (Accepted::Tcp(stream, peer), _) => handlers.spawn(tcp(stream, peer, settings, phase, place)),
        (Accepted::Unix(stream), _) => handlers.spawn(unix(stream, settings, phase, place)),
    };
    shared.admission.register(id, task, max_strangers);
}

async fn tcp(
    stream: TcpStream,
    peer: SocketAddr,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) {
    if let Err(error) = tune(&stream) {
        warn!(%peer, %error, "socket options");
    }
    report(&peer.to_string(), serve_tls(stream, peer.to_string(), settings, phase, place).await);
}

async fn unix(
    stream: UnixStream,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
    place: Place,
) {
    match stream.peer_cred() {
        Ok(peer) => {
            report("unix socket", serve_local(stream, peer.uid(), settings, phase, place).await);
        }
        Err(error) => warn!(%error, "the kernel doesn't tell who the peer is"),
    }
}

/// Serves one end of a socket pair inside this process: the `local` target. The kernel still tells whose end the other is.
pub async fn local(stream: UnixStream, settings: Arc<Settings>) {
    let (_settings, seen) = watch::channel(settings);
    let (_phase, phase) = watch::channel(Phase::Serving);
    if let Some(place) = Admission::default().admit(1) {
        unix(stream, seen, phase, place).await;
    }
}

fn report(peer: &str, result: Result<(), HandshakeError>) {
    if let Err(error) = result {
        info!(peer, error = %chain(&error), "no connection");
    }
}
