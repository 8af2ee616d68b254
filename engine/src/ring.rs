//! The bytes of a stream that are not yet acknowledged: a ring that starts small, grows with need, and never above its
//! window.

use crate::sys::Piece;

/// Bytes of the first allocation; most commands print less.
const FIRST: usize = 16 * 1024;

/// Where the bytes are.
#[derive(Debug)]
enum Memory {
    /// Nobody else's. Growing it moves the bytes to its beginning.
    Own(Vec<u8>),
    /// Read by another process, which knows where the bytes are: they never move.
    Shared(Piece),
}

/// A stream's retained bytes at absolute offsets.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Memory,
    /// Bytes of the memory that are in use.
    capacity: usize,
    /// Index of the first retained byte.
    head: usize,
    /// Retained bytes.
    len: usize,
    /// Offset of the first retained byte.
    start: u64,
    /// The most that is retained.
    window: usize,
}

impl Ring {
    /// An empty ring that allocates nothing yet. A window of 0 counts as 1: something must fit, or nothing ever moves.
    pub(crate) fn new(window: usize) -> Self {
        Ring::of(Memory::Own(Vec::new()), window.max(1))
    }

    /// An empty ring in memory that is shared, whose size is the window.
    pub(crate) fn shared(piece: Piece) -> Self {
        let window = piece.len();
        Ring::of(Memory::Shared(piece), window)
    }

    fn of(memory: Memory, window: usize) -> Self {
        Ring { memory, capacity: 0, head: 0, len: 0, start: 0, window }
    }

    /// Offset of the first retained byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last retained byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// Whether nothing more fits until something is freed.
    pub(crate) fn is_full(&self) -> bool {
        match &self.memory {
            // What goes round its end can't be laid out anew.
            Memory::Shared(_) if self.head + self.len > self.capacity => self.len >= self.capacity,
            _ => self.len >= self.window,
        }
    }

    /// Where in the memory the next byte would lie, and how many bytes of it are in use: the bytes before lie before it, and
    /// go on at the end of what is in use. For who reads the memory from elsewhere.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.head + self.len, self.capacity)
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Own(memory) => memory,
            Memory::Shared(piece) => piece,
        }
    }

    /// Writable memory behind the last byte, at most `most` bytes; empty when full (or `most` is 0).
    pub(crate) fn space(&mut self, most: usize) -> &mut [u8] {
        if self.len == self.capacity {
            self.grow();
        }
        let capacity = self.capacity;
        let tail = self.head + self.len;
        let (from, to) = if tail < capacity { (tail, capacity) } else { (tail - capacity, self.head) };
        let to = to.min(from.saturating_add(most));
        match &mut self.memory {
            Memory::Own(memory) => memory.get_mut(from..to).unwrap_or_default(),
            Memory::Shared(piece) => piece.get_mut(from..to).unwrap_or_default(),
        }
    }

    /// Counts `n` bytes that were written into [`Ring::space`] as retained, and returns them.
    pub(crate) fn commit(&mut self, n: usize) -> &[u8] {
        let capacity = self.capacity;
        let tail = self.head + self.len;
        let from = if tail < capacity { tail } else { tail - capacity };
        let n = n.min(capacity - self.len);
        self.len += n;
        self.bytes().get(from..from + n).unwrap_or_default()
    }

    /// Doubles the memory up to the window.
    pub(crate) fn grow(&mut self) {
        let wanted = match self.capacity {
            0 => FIRST,
            some => some.saturating_mul(2),
        };
        let wanted = wanted.min(self.window);
        if wanted <= self.capacity {
            return;
        }
        if let Memory::Shared(_) = self.memory {
            if self.head + self.len <= self.capacity {
                self.capacity = wanted;
            }
            return;
        }
        let mut larger = vec![0; wanted];
        let (first, second) = self.retained();
        if let Some(to) = larger.get_mut(..first.len()) {
            to.copy_from_slice(first);
        }
        if let Some(to) = larger.get_mut(first.len()..first.len() + second.len()) {
            to.copy_from_slice(second);
        }
        self.memory = Memory::Own(larger);
        self.capacity = wanted;
        self.head = 0;
    }

    /// All retained bytes, in order.
    fn retained(&self) -> (&[u8], &[u8]) {
        let (memory, capacity) = (self.bytes(), self.capacity);
        let end = self.head + self.len;
        if end <= capacity {
            (memory.get(self.head..end).unwrap_or_default(), &[])
        } else {
            (
                memory.get(self.head..capacity).unwrap_or_default(),
                memory.get(..end - capacity).unwrap_or_default(),
            )
        }
    }

    /// The retained bytes from an offset on; `None` where it isn't between start and end.
    pub(crate) fn from(&self, offset: u64) -> Option<(&[u8], &[u8])> {
        let skip = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        if skip > self.len {
            return None;
        }
        let (first, second) = self.retained();
        match first.get(skip..) {
            Some(rest) => Some((rest, second)),
            None => Some((second.get(skip - first.len()..)?, &[])),
        }
    }

    /// Frees what lies before an offset, at most up to the end; whether anything was freed.
    pub(crate) fn release(&mut self, upto: u64) -> bool {
        let n = upto.saturating_sub(self.start).min(self.len as u64);
        let count = n as usize;
        self.start += n;
        self.len -= count;
        // An empty ring begins anew, so that the next read finds all of it in one piece, and in the cache.
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.capacity.max(1) };
        count > 0
    }

    /// Bytes of memory held at the moment.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// Gives the memory back if nothing is retained.
    pub(crate) fn shrink_if_empty(&mut self) {
        if let (0, Memory::Own(memory)) = (self.len, &mut self.memory) {
            *memory = Vec::new();
            self.capacity = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Ring};
    use crate::sys::{SharedMemory, View};

    fn put(ring: &mut Ring, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let space = ring.space(bytes.len() - done);
            let n = space.len();
            if n == 0 {
                break;
            }
            space.copy_from_slice(&bytes[done..done + n]);
            assert_eq!(ring.commit(n), &bytes[done..done + n]);
            done += n;
        }
        done
    }

    /// What another process would read, who knows only what `place` said.
    fn seen(view: &View, ring: &Ring, from: u64) -> Vec<u8> {
        let (place, capacity) = ring.place();
        let length = (ring.end() - from) as usize;
        match place.checked_sub(length) {
            Some(at) if place <= capacity => view.bytes(at, length).to_vec(),
            Some(at) if at >= capacity => view.bytes(at - capacity, length).to_vec(),
            Some(at) => [view.bytes(at, capacity - at), view.bytes(0, place - capacity)].concat(),
            None => panic!("{place} {length}"),
        }
    }

    #[test]
    fn what_is_shared_never_moves_while_it_is_retained() {
        let mut memory = SharedMemory::new(64 * 1024).unwrap();
        let [piece] = memory.pieces::<1>().unwrap();
        let view = memory.view().unwrap();
        let mut ring = Ring::shared(piece);
        let pattern = |offset: u64| (offset.wrapping_mul(2_654_435_761) >> 13) as u8;
        let (mut written, mut read) = (0_u64, 0_u64);
        for round in 0..20_000_u64 {
            let want = (round * 7_919) % 9_001;
            let bytes: Vec<u8> = (written..written + want).map(pattern).collect();
            if !ring.is_full() {
                assert!(!ring.space(1).is_empty());
            }
            written += put(&mut ring, &bytes) as u64;
            let expected: Vec<u8> = (read..written).map(pattern).collect();
            assert_eq!(all(&ring, read), expected);
            assert_eq!(seen(&view, &ring, read), expected);
            read = (read + (round * 104_729) % 9_500).min(written);
            ring.release(read);
        }
        assert!(written > 10_000_000);
    }

    fn all(ring: &Ring, from: u64) -> Vec<u8> {
        let (first, second) = ring.from(from).unwrap();
        [first, second].concat()
    }

    #[test]
    fn bytes_come_out_as_they_went_in_however_it_wraps_and_grows() {
        // A window that is no power of two, with strides that are prime to it.
        let mut ring = Ring::new(100_003);
        let mut written: u64 = 0;
        let mut read: u64 = 0;
        let pattern = |offset: u64| (offset.wrapping_mul(2_654_435_761) >> 13) as u8;
        for round in 0..4_000_u64 {
            let want = (round * 7_919) % 9_001;
            let bytes: Vec<u8> = (written..written + want).map(pattern).collect();
            written += put(&mut ring, &bytes) as u64;
            assert_eq!(ring.end(), written);
            let upto = (read + (round * 104_729) % 9_500).min(written);
            let expected: Vec<u8> = (read..written).map(pattern).collect();
            assert_eq!(all(&ring, read), expected);
            ring.release(upto);
            read = upto;
            assert!(ring.memory_bytes() <= 100_003);
        }
        assert!(written > 1_000_000);
    }

    #[test]
    fn it_holds_no_more_than_its_window_and_starts_small() {
        let mut ring = Ring::new(1 << 20);
        assert_eq!(ring.memory_bytes(), 0);
        put(&mut ring, b"x");
        assert_eq!(ring.memory_bytes(), FIRST);
        assert_eq!(put(&mut ring, &vec![7; 2 << 20]), (1 << 20) - 1);
        assert!(ring.is_full());
        assert!(ring.space(1).is_empty());
        assert!(ring.release(1));
        assert_eq!(ring.space(10).len(), 1);
    }

    #[test]
    fn offsets_outside_are_none() {
        let mut ring = Ring::new(16);
        put(&mut ring, b"abcdef");
        ring.release(2);
        assert_eq!(ring.from(1), None);
        assert_eq!(all(&ring, 2), b"cdef");
        assert_eq!(all(&ring, 6), b"");
        assert_eq!(ring.from(7), None);
        assert!(!ring.release(2));
        assert!(ring.release(u64::MAX));
        assert_eq!(ring.start(), 6);
    }
}
