//! Buffers that are used again: bytes handed on to a job keep their buffer alive, and a fresh allocation for each read
//! would cost more than decrypting what is read.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Size of a buffer.
const SIZE: usize = 256 * 1024;
/// Buffers kept for another use. Together they hold more than a stream's window.
const KEPT: usize = 8;
/// A buffer with less room than this is put away for the next one.
const ROOM: usize = 32 * 1024;

/// Buffers whose bytes are still in use somewhere, or not any more.
#[derive(Default)]
pub struct Buffers {
    used: VecDeque<BytesMut>,
}

impl Buffers {
    /// Sees to it that `input` has room for a read, keeping what is in it.
    pub fn make_room(&mut self, input: &mut BytesMut) {
        if input.capacity() - input.len() >= ROOM || input.try_reclaim(ROOM.max(input.len())) {
            return;
        }
        // The oldest is the likeliest to be free.
        let free = self.used.iter_mut().position(|buffer| buffer.try_reclaim(SIZE.max(input.len() + ROOM)));
        let mut next = match free.and_then(|at| self.used.remove(at)) {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            // The first one is small: most connections never have much to say.
            None if self.used.is_empty() && input.capacity() == 0 => BytesMut::with_capacity(ROOM),
            None => BytesMut::with_capacity(SIZE.max(input.len() + ROOM)),
        };
        next.extend_from_slice(input);
        let mut old = std::mem::replace(input, next);
        old.clear();
        if old.capacity() > 0 {
            self.used.push_back(old);
            self.used.truncate(KEPT);
        }
    }

    /// Gives the memory back: nothing is going on.
    pub fn release(&mut self, input: &mut BytesMut) {
        self.used = VecDeque::new();
        if input.is_empty() {
            *input = BytesMut::new();
        }
    }
}
