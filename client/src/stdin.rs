//! A job's stdin on its way: what waits for credit, and what was sent and may have to be sent again.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;

/// A queue of stdin at absolute offsets. What is kept is shared with what was sent, not copied.
#[derive(Default)]
pub(crate) struct StdinQueue {
    /// What waits for credit.
    chunks: VecDeque<Bytes>,
    queued: usize,
    /// What was sent, and isn't where it belongs as far as we know: a window at the most.
    kept: VecDeque<Bytes>,
    /// Offsets of the first byte that is kept, and behind the last.
    kept_from: u64,
    sent: u64,
    finished: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl StdinQueue {
    /// Most bytes that wait here.
    const LIMIT: usize = 512 * 1024;

    pub(crate) fn closed() -> Self {
        StdinQueue { finished: true, closed: true, ..StdinQueue::default() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queued < StdinQueue::LIMIT || self.closed
    }

    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !self.closed && !bytes.is_empty() {
            self.queued += bytes.len();
            self.chunks.push_back(bytes);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished && self.chunks.is_empty()
    }

    /// The command takes no more: what waits is dropped, and so is what still comes.
    pub(crate) fn discard(&mut self) {
        self.closed = true;
        self.chunks.clear();
        self.kept.clear();
        self.queued = 0;
        self.finished = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// The next bytes to send, which are kept until [`StdinQueue::release`] where somebody may come back for them.
    pub(crate) fn take(&mut self, most: u64, keep: bool) -> Option<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 {
            return None;
        }
        let front = self.chunks.front_mut()?;
        let chunk = if front.len() <= most { self.chunks.pop_front()? } else { front.split_to(most) };
        self.queued -= chunk.len();
        self.sent += chunk.len() as u64;
        if keep {
            self.kept.push_back(chunk.clone());
        }
        if self.has_room() {
            self.waker.take().into_iter().for_each(Waker::wake);
        }
        Some(chunk)
    }

    /// What lies before an offset is where it belongs.
    pub(crate) fn release(&mut self, upto: u64) {
        while let Some(front) = self.kept.front_mut() {
            let over = upto.saturating_sub(self.kept_from);
            match usize::try_from(over).ok().filter(|over| *over < front.len()) {
                Some(over) => {
                    let _ = front.split_to(over);
                    self.kept_from += over as u64;
                    return;
                }
                None => {
                    self.kept_from += front.len() as u64;
                    self.kept.pop_front();
                }
            }
        }
        self.kept_from = self.kept_from.max(upto);
    }

    /// The receiver goes on at an offset: that of others, where nothing was sent before, or one at which something is kept.
    pub(crate) fn go_on(&mut self, at: u64) {
        if self.kept.is_empty() && self.sent < at {
            (self.sent, self.kept_from) = (at, at);
        }
        self.rewind(at);
    }

    /// Goes back to an offset at which something is kept, or to the end: what lies behind it is sent again.
    pub(crate) fn rewind(&mut self, to: u64) {
        while self.sent > to
            && let Some(mut last) = self.kept.pop_back()
        {
            let start = self.sent - last.len() as u64;
            let again = match usize::try_from(to.saturating_sub(start)) {
                Ok(here) if here > 0 && here < last.len() => {
                    let again = last.split_off(here);
                    self.kept.push_back(last);
                    again
                }
                _ => last,
            };
            self.sent -= again.len() as u64;
            self.queued += again.len();
            self.chunks.push_front(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut StdinQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.take(3, true)).flatten().collect()
    }

    #[test]
    fn what_is_not_where_it_belongs_is_sent_again_from_any_offset() {
        for released in 0..=10 {
            for back in released..=10 {
                let mut queue = StdinQueue::default();
                for piece in ["ab", "cdefg", "h", "ij"] {
                    queue.push(piece.into());
                }
                assert_eq!(all(&mut queue), b"abcdefghij");
                queue.release(released);
                queue.rewind(back);
                queue.push("kl".into());
                assert_eq!(all(&mut queue), b"abcdefghijkl"[back as usize..], "{released} {back}");
                queue.release(12);
                queue.rewind(12);
                assert_eq!(queue.take(1, true), None);
            }
        }
    }
}
