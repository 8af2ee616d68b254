//! The input of a job: what was given for it and isn't yet in the command's pipe.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::error::InputError;

/// A queue of input at absolute offsets.
#[derive(Debug)]
pub(crate) struct InputQueue {
    queue: VecDeque<Bytes>,
    /// Offset behind the last byte that was given.
    given: u64,
    /// Offset behind the last byte that was written to the command, or discarded.
    consumed: u64,
    /// Where input ends, once that was said.
    end: Option<u64>,
    /// The command no longer reads: what is given is discarded.
    closed: bool,
    window: u64,
}

impl InputQueue {
    /// An empty queue; `closed` where there is no pipe to write to.
    pub(crate) fn new(window: usize, closed: bool) -> Self {
        InputQueue { queue: VecDeque::new(), given: 0, consumed: 0, end: None, closed, window: window as u64 }
    }

    /// Offset behind the last byte that was given.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// Where input ends, once that was said.
    pub(crate) fn end(&self) -> Option<u64> {
        self.end
    }

    /// Offset behind the last byte that was consumed.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Up to where bytes are taken at the moment.
    pub(crate) fn limit(&self) -> u64 {
        self.consumed.saturating_add(self.window)
    }

    /// Whether what is given is discarded.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes bytes.
    pub(crate) fn give(&mut self, offset: u64, bytes: Bytes) -> Result<(), InputError> {
        if offset != self.given {
            return Err(InputError::OutOfOrder { offset, expected: self.given });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if let Some(at) = self.end
            && end > at
        {
            return Err(InputError::BehindEnd { end, at });
        }
        if end > self.limit() {
            return Err(InputError::BeyondWindow { end, limit: self.limit() });
        }
        self.given = end;
        if self.closed {
            self.consumed = end;
        } else if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
        Ok(())
    }

    /// Sets where input ends.
    pub(crate) fn end_at(&mut self, at: u64) -> Result<(), InputError> {
        match self.end {
            Some(end) if end != at => Err(InputError::BehindEnd { end: at, at: end }),
            _ if at < self.given => Err(InputError::BehindEnd { end: self.given, at }),
            _ => {
                self.end = Some(at);
                Ok(())
            }
        }
    }

    /// Whether every byte up to the end was written.
    pub(crate) fn is_complete(&self) -> bool {
        self.end == Some(self.consumed)
    }

    /// Whether bytes wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The waiting pieces, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.queue.iter().map(|bytes| &**bytes)
    }

    /// Takes `n` bytes off the front as written, handing each piece to `seen`.
    pub(crate) fn advance(&mut self, n: usize, mut seen: impl FnMut(&[u8])) {
        let mut left = n;
        while left > 0
            && let Some(front) = self.queue.front_mut()
        {
            let step = left.min(front.len());
            seen(front.get(..step).unwrap_or_default());
            front.advance(step);
            left -= step;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        self.consumed += (n - left) as u64;
    }

    /// The first bytes that wait, as many as `most`. They still wait.
    pub(crate) fn waiting(&self, most: usize) -> Vec<u8> {
        self.pieces().flatten().copied().take(most).collect()
    }

    /// The command no longer reads: discards what waits and what comes. Whether anything was lost by it.
    pub(crate) fn close(&mut self) -> bool {
        let complete = self.is_complete();
        self.closed = true;
        let lost = self.consumed < self.given;
        self.queue = VecDeque::new();
        self.consumed = self.given;
        lost || (!complete && self.end.is_some_and(|end| end > self.given))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::InputQueue;
    use crate::error::InputError;

    #[test]
    fn input_out_of_turn_is_an_error() {
        let mut input = InputQueue::new(8, false);
        input.give(0, Bytes::from_static(b"abc")).unwrap();
        assert_eq!(
            input.give(2, Bytes::from_static(b"c")),
            Err(InputError::OutOfOrder { offset: 2, expected: 3 })
        );
        assert_eq!(
            input.give(3, Bytes::from_static(b"123456")),
            Err(InputError::BeyondWindow { end: 9, limit: 8 })
        );
        assert_eq!(input.end_at(2), Err(InputError::BehindEnd { end: 3, at: 2 }));
        input.end_at(4).unwrap();
        assert_eq!(input.give(3, Bytes::from_static(b"12")), Err(InputError::BehindEnd { end: 5, at: 4 }));
        assert_eq!(input.end_at(5), Err(InputError::BehindEnd { end: 5, at: 4 }));
        input.end_at(4).unwrap();
        input.give(3, Bytes::from_static(b"d")).unwrap();
        let mut seen = Vec::new();
        input.advance(4, |piece| seen.extend_from_slice(piece));
        assert_eq!(seen, b"abcd");
        assert!(input.is_complete());
    }

    #[test]
    fn closed_input_is_consumed_at_once() {
        let mut input = InputQueue::new(8, false);
        input.give(0, Bytes::from_static(b"abc")).unwrap();
        assert!(input.close());
        assert_eq!(input.consumed(), 3);
        input.give(3, Bytes::from_static(b"12345678")).unwrap();
        assert_eq!(input.consumed(), 11);
        assert!(input.is_empty());
    }
}
