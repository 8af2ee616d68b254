//! The two ends of a stream: what was sent, what may be sent, what was consumed.

use super::fault::Fault;
use super::proto;
use crate::limits;

/// The sending end.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    sent: u64,
    consumed: u64,
    limit: u64,
    ended: bool,
    stopped: bool,
    /// The receiver has yet to say where it goes on.
    held: bool,
    /// Wherever that is: this side has sent nothing.
    anywhere: bool,
}

impl Outgoing {
    /// A stream at offset 0 that may send up to `limit`.
    pub fn new(limit: u64) -> Self {
        Outgoing { sent: 0, consumed: 0, limit, ended: false, stopped: false, held: false, anywhere: false }
    }

    /// A stream that goes on at offset `sent` on a new connection, with a window behind `consumed`.
    pub(super) fn at(sent: u64, consumed: u64, window: u64) -> Self {
        Outgoing { sent, consumed, limit: consumed.saturating_add(window), ..Outgoing::new(0) }
    }

    /// The same stream on a new connection: nothing is sent until its receiver has said where it goes on.
    pub(super) fn hold(self) -> Self {
        Outgoing { ended: false, held: true, ..self }
    }

    /// A stream that others have sent before: it goes on wherever its receiver is.
    pub(super) fn anywhere() -> Self {
        Outgoing { held: true, anywhere: true, ..Outgoing::new(0) }
    }

    /// The receiver goes on where it says.
    pub(super) fn handle_position(&mut self, at: &proto::StdinPosition, window: u64) -> Result<(), Fault> {
        let (kept, sent) = (self.consumed, self.sent);
        // Where the receiver wants no more of it, it may have had it from others since.
        let is_free = self.anywhere || at.stopped;
        if !is_free && !(kept..=sent).contains(&at.received) || at.consumed > at.received {
            return Err(Fault::WrongResume { at: at.received, kept, sent });
        }
        let consumed = at.consumed.max(kept);
        *self =
            Outgoing { ended: at.ended, stopped: at.stopped, ..Outgoing::at(at.received, consumed, window) };
        // A window that has shrunk meanwhile takes nothing back.
        self.limit = self.limit.max(self.sent);
        Ok(())
    }

    /// Whether the receiver has yet to say where it goes on.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Offset of the next byte to send.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Up to here the receiver needs the bytes no more.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// How many bytes may be sent now.
    pub fn room(&self) -> u64 {
        if self.ended || self.stopped || self.held { 0 } else { self.limit - self.sent }
    }

    /// Whether this side said that the stream ends.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the receiver wants no more.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Counts bytes as sent, and gives the offset of their first. Never more than [`Outgoing::room`].
    pub(super) fn send(&mut self, length: u64) -> Option<u64> {
        if length > self.room() {
            return None;
        }
        let at = self.sent;
        self.sent += length;
        Some(at)
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn handle_stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn handle_credit(&mut self, consumed: u64, limit: u64) -> Result<(), Fault> {
        if consumed < self.consumed || consumed > self.sent || limit < self.limit || limit < consumed {
            return Err(Fault::WrongCredit);
        }
        self.consumed = consumed;
        self.limit = limit;
        Ok(())
    }
}

/// The receiving end.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    received: u64,
    consumed: u64,
    limit: u64,
    window: u64,
    ended: bool,
    stopped: bool,
}

impl Incoming {
    /// A stream at offset 0 that takes `window` bytes before any is consumed.
    pub fn new(window: u64) -> Self {
        Incoming { received: 0, consumed: 0, limit: window, window, ended: false, stopped: false }
    }

    /// A stream that goes on at offset `received` on a new connection, with a window behind `consumed`.
    pub(super) fn at(received: u64, consumed: u64, window: u64) -> Self {
        Incoming { received, consumed, limit: consumed.saturating_add(window), ..Incoming::new(window) }
    }

    /// The same stream on a new connection.
    pub(super) fn again(self) -> Self {
        Incoming::at(self.received, self.consumed, self.window)
    }

    /// How far it is.
    pub(super) fn position(&self) -> proto::Position {
        proto::Position { received: self.received, consumed: self.consumed }
    }

    /// Offset of the next byte to come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the sender said that the stream ends.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn handle_data(&mut self, offset: u64, length: u64) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        if offset != self.received {
            return Err(Fault::WrongOffset { got: offset, expected: self.received });
        }
        let end = offset.saturating_add(length);
        if end > self.limit {
            return Err(Fault::BeyondCredit { end, limit: self.limit });
        }
        self.received = end;
        Ok(())
    }

    pub(super) fn handle_end(&mut self, length: u64) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        if length != self.received {
            return Err(Fault::WrongOffset { got: length, expected: self.received });
        }
        self.ended = true;
        Ok(())
    }

    /// How much is consumed between two credits. A sender may keep less than the window: it forgets nothing before it is told to.
    fn step(&self) -> u64 {
        (self.window.min(limits::WINDOW) / 4).max(1)
    }

    /// Notes that everything before `upto` is where it belongs. Gives the credit to announce, once a quarter of the
    /// window is free: announcing each byte would double the traffic, waiting for the whole window would stall the sender.
    pub(super) fn consume(&mut self, upto: u64) -> Option<(u64, u64)> {
        self.consumed = self.consumed.max(upto.min(self.received));
        let limit = self.consumed.saturating_add(self.window);
        if self.ended || self.stopped || self.window == 0 || limit - self.limit < self.step() {
            return None;
        }
        self.limit = limit;
        Some((self.consumed, limit))
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn set_ended(&mut self, ended: bool) {
        self.ended = ended;
    }

    /// This side wants no more. True the first time.
    pub(super) fn stop(&mut self) -> bool {
        let first = !self.stopped && !self.ended;
        self.stopped = true;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_keeps_less_than_the_window_is_told_in_time() {
        for (window, step) in [(16, 4), (limits::WINDOW, limits::WINDOW / 4), (8 << 20, limits::WINDOW / 4)] {
            let mut incoming = Incoming { received: window, ..Incoming::new(window) };
            assert_eq!(incoming.consume(step - 1), None);
            assert_eq!(incoming.consume(step), Some((step, step + window)));
        }
    }
}
