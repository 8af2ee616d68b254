//! A bad network on this machine: a TCP proxy that cuts, resets, half-closes, stalls, throttles and delays, at byte offsets that a seed
//! gives. The same seed gives the same faults at the same offsets of what passes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::chance;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both ends see an end of the stream, in the middle of whatever passed.
    Cut,
    /// Both ends see a reset (RFC 9293, 3.10.7.4), which throws away what was received and not read.
    Reset,
    /// The end that the bytes were going to sees no more of them; the other way goes on.
    HalfClose,
    /// Nothing passes for this time, either way; then what was held back does, and the connection is cut.
    Stall(Duration),
    /// These bytes come later.
    Delay(Duration),
    /// As many bytes from here on pass in small pieces, with pauses.
    Throttle(u64),
}

/// The shortest of the pieces, and the pause between them, of a throttled stretch.
const PIECE: usize = 512;
const PAUSE: Duration = Duration::from_micros(500);

struct State {
    upstream: SocketAddr,
    /// What is to come: the offset among all bytes that pass, either way, the last first.
    faults: Vec<(u64, Fault)>,
    passed: u64,
    throttled: u64,
    /// What came from upstream on each connection so far.
    received: Vec<u64>,
    open: Vec<(TcpStream, TcpStream)>,
    closed: bool,
}

/// The proxy. Ends when it is dropped, with every connection.
pub struct FaultyProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyProxy {
    /// A proxy to `upstream` with `count` faults of all kinds, spread by the seed over the first `over` bytes that pass; stalls last for
    /// `stall`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn new(
        upstream: SocketAddr,
        seed: u64,
        count: usize,
        over: u64,
        stall: Duration,
    ) -> io::Result<Self> {
        let mut seed = seed;
        let faults = (0..count).map(|_| {
            let at = chance(&mut seed) % over.max(1);
            let fault = match chance(&mut seed) % 10 {
                0..=2 => Fault::Cut,
                3..=5 => Fault::Reset,
                6 => Fault::HalfClose,
                7 => Fault::Stall(stall),
                8 => Fault::Delay(Duration::from_millis(chance(&mut seed) % 100)),
                _ => Fault::Throttle(chance(&mut seed) % 100_000),
            };
            (at, fault)
        });
        FaultyProxy::with(upstream, faults.collect())
    }

    /// A proxy with these faults.
    ///
    /// # Errors
    /// I/O errors.
    pub fn with(upstream: SocketAddr, mut faults: Vec<(u64, Fault)>) -> io::Result<Self> {
        faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            upstream,
            faults,
            passed: 0,
            throttled: 0,
            received: Vec::new(),
            open: Vec::new(),
            closed: false,
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if lock(&shared).closed {
                    return;
                }
                // A server that refuses is, seen from here, a connection that ends at once.
                if let Ok(client) = client {
                    let _ = join(client, &shared);
                }
            }
        });
        Ok(FaultyProxy { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go here from now on.
    pub fn lead_to(&self, upstream: SocketAddr) {
        lock(&self.state).upstream = upstream;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        lock(&self.state).received.len()
    }

    /// Bytes that came from upstream, one number a connection, in their order. Those are counted that a fault kept from passing, too.
    pub fn received(&self) -> Vec<u64> {
        lock(&self.state).received.clone()
    }

    /// Bytes that passed, either way.
    pub fn passed(&self) -> u64 {
        lock(&self.state).passed
    }

    /// Faults that are still to come.
    pub fn left(&self) -> usize {
        lock(&self.state).faults.len()
    }

    /// Resets every connection there is now.
    pub fn cut(&self) {
        lock(&self.state).open.drain(..).for_each(|(one, other)| end(&one, &other, true));
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        lock(&self.state).closed = true;
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn end(one: &TcpStream, other: &TcpStream, reset: bool) {
    for stream in [one, other] {
        if reset {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn join(client: TcpStream, state: &Arc<Mutex<State>>) -> io::Result<()> {
    let (upstream, number) = {
        let mut state = lock(state);
        state.received.push(0);
        (state.upstream, state.received.len() - 1)
    };
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    lock(state).open.push((client.try_clone()?, server.try_clone()?));
    let stalled = Arc::new(Mutex::new(()));
    for (from, to, counts) in
        [(client.try_clone()?, server.try_clone()?, None), (server, client, Some(number))]
    {
        let (state, stalled) = (state.clone(), stalled.clone());
        thread::spawn(move || {
            let orderly = pump(&from, &to, &state, &stalled, counts).unwrap_or(false);
            let _ = to.shutdown(Shutdown::Write);
            if !orderly {
                end(&from, &to, false);
            }
        });
    }
    Ok(())
}

/// Moves bytes one way, and counts them under the number of a connection; true at their end, false where the connection is over.
fn pump(
    mut from: &TcpStream,
    mut to: &TcpStream,
    state: &Mutex<State>,
    stalled: &Mutex<()>,
    counts: Option<usize>,
) -> io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        if let Some(number) = counts {
            lock(state).received.get_mut(number).into_iter().for_each(|received| *received += length as u64);
        }
        // While one way is stalled, the other is.
        drop(stalled.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(true);
        }
        while !rest.is_empty() {
            let (now, fault, throttled) = {
                let mut state = lock(state);
                let throttled = state.throttled > 0;
                let most = if throttled { PIECE.min(rest.len()) } else { rest.len() };
                let due = state.faults.last().map_or(u64::MAX, |(at, _)| at.saturating_sub(state.passed));
                let now = usize::try_from(due).unwrap_or(usize::MAX).min(most);
                state.passed += now as u64;
                state.throttled = state.throttled.saturating_sub(now as u64);
                let fault = if due <= most as u64 { state.faults.pop() } else { None };
                (now, fault.map(|(_, fault)| fault), throttled)
            };
            let (piece, later) = rest.split_at(now);
            rest = later;
            to.write_all(piece)?;
            match fault {
                None => {}
                Some(Fault::Cut) => return Ok(false),
                Some(Fault::Reset) => {
                    end(from, to, true);
                    return Ok(false);
                }
                Some(Fault::HalfClose) => return Ok(true),
                Some(Fault::Stall(time)) => {
                    let held = stalled.lock().unwrap_or_else(PoisonError::into_inner);
                    thread::sleep(time);
                    drop(held);
                    to.write_all(rest)?;
                    return Ok(false);
                }
                Some(Fault::Delay(time)) => thread::sleep(time),
                Some(Fault::Throttle(bytes)) => lock(state).throttled = bytes,
            }
            if throttled {
                thread::sleep(PAUSE);
            }
        }
    }
}
