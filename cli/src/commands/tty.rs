//! A job's terminal and ours: made alike, sized alike, typed into.

use std::cell::Cell;
use std::io::{self, IsTerminal};

use bytes::Bytes;
use remora_client::{Connection, Job, Request, Writer, proto, terminal_like, window_size};

use crate::arguments::Exec;
use crate::escape::{Escapes, HELP, Wish};
use crate::raw_mode::RawMode;
use crate::stdio::Source;
use crate::terminal::{Failure, hint, say};

/// What a terminal is like when we have none to be like.
const UNSEEN: proto::WindowSize = proto::WindowSize { rows: 24, columns: 80, width: 0, height: 0 };

/// What of our environment a program on a terminal needs; ssh's usual `SendEnv` and `TERM`.
const TRAVELS: [&str; 3] = ["TERM", "COLORTERM", "LANG"];

/// Gives a request a terminal, where one is asked for. Returns whether what is typed here goes to it raw.
///
/// # Errors
/// `remora pty` without a terminal.
pub(super) fn prepare(exec: &Exec, request: &mut Request) -> Result<bool, Failure> {
    if exec.tty == 0 {
        return Ok(false);
    }
    let ours = io::stdin().is_terminal();
    if !ours && exec.tty < 2 {
        if exec.login {
            return Err(Failure::usage("standard input is no terminal")
                .with_hint("to run commands from a file or pipe: remora exec HOST sh < FILE; to force a terminal: remora exec -tt HOST COMMAND"));
        }
        say("the command gets no terminal, since standard input is none (-tt gives it one in any case)");
        return Ok(false);
    }
    request.terminal = Some(match terminal_like(io::stdin()) {
        Some(terminal) => terminal,
        None => proto::Terminal { size: Some(size().unwrap_or(UNSEEN)), ..proto::Terminal::default() },
    });
    // What is asked for by name comes last and wins.
    request.environment = travels().chain(std::mem::take(&mut request.environment)).collect();
    Ok(ours)
}

/// The variables that travel, with their values.
pub(super) fn travels() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_encoded_bytes();
        let wanted = name.starts_with(b"LC_") || TRAVELS.iter().any(|travels| travels.as_bytes() == name);
        wanted.then(|| (name, value.into_encoded_bytes()))
    })
}

/// The size of whichever of our streams is a terminal.
pub(super) fn size() -> Option<proto::WindowSize> {
    window_size(io::stdin()).or_else(|| window_size(io::stdout())).or_else(|| window_size(io::stderr()))
}

/// Tells the job whenever our window has another size.
pub(super) async fn follow_size(job: &Job) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return std::future::pending().await };
    loop {
        changed.recv().await;
        if let Some(size) = size() {
            job.resize(&size);
        }
    }
}

/// Why typing ended.
pub(super) enum Typed {
    /// Our terminal is gone, or the command reads no more.
    Ended,
    /// A person left.
    Left,
}

/// Sends what is typed, escapes taken out.
///
/// # Errors
/// Our terminal can't be read.
pub(super) async fn type_into(
    writer: &mut Writer,
    raw: &Cell<Option<RawMode>>,
    job: &Job,
    connection: &Connection,
) -> io::Result<Typed> {
    let mut source = Source::open();
    let mut interrupts = Interrupts::default();
    let mut escapes = Escapes::default();
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = source.read() => chunk?,
            () = writer.closed() => return Ok(Typed::Ended),
        };
        let Some(chunk) = chunk else { return Ok(Typed::Ended) };
        if interrupts.typed(&chunk, connection.lost().is_some()) {
            return Ok(Typed::Left);
        }
        let mut rest = chunk.as_ref();
        loop {
            let mut out = Vec::with_capacity(rest.len());
            let wish = escapes.filter(rest, &mut out);
            if !out.is_empty() && !writer.write(Bytes::from(out)).await {
                return Ok(Typed::Ended);
            }
            let Some((wish, taken)) = wish else { break };
            rest = rest.get(taken..).unwrap_or_default();
            match wish {
                Wish::Leave => return Ok(Typed::Left),
                Wish::Help => hint(HELP),
                Wish::Suspend => suspend(raw, job),
            }
        }
    }
}

/// Ctrl-C as a terminal sends it.
const CTRL_C: u8 = 0x03;

/// Watches for two Ctrl-C with nothing in between while the connection is lost: they can't reach who would answer them.
#[derive(Default)]
pub(super) struct Interrupts(u32);

impl Interrupts {
    /// Whether what is typed leaves.
    pub(super) fn typed(&mut self, bytes: &[u8], lost: bool) -> bool {
        for byte in bytes {
            self.0 = if lost && *byte == CTRL_C { self.0 + 1 } else { 0 };
            if self.0 == 2 {
                return true;
            }
        }
        false
    }
}

/// Stops this client as a shell's Ctrl-Z does, with the terminal as it was, until it is continued.
fn suspend(raw: &Cell<Option<RawMode>>, job: &Job) {
    let Some(mut mode) = raw.take() else { return };
    mode.suspend();
    // Returns once somebody continues us.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
    if mode.resume().is_ok() {
        raw.set(Some(mode));
    }
    if let Some(size) = size() {
        job.resize(&size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_interrupts_in_a_row_leave_a_connection_that_is_lost_and_no_other() {
        let typed = |pieces: &[&[u8]], lost| {
            let mut interrupts = Interrupts::default();
            pieces.iter().any(|bytes| interrupts.typed(bytes, lost))
        };
        assert!(typed(&[b"x\x03\x03"], true) && typed(&[b"\x03", b"\x03"], true));
        assert!(!typed(&[b"\x03x\x03"], true) && !typed(&[b"\x03"], true));
        assert!(!typed(&[b"\x03\x03\x03"], false));
    }
}
