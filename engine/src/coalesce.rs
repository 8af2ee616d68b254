//! Lets the pipe collect what a command writes in very many very small pieces.
//!
//! Each piece that is read at once costs a wake-up here, a frame, a record and a wake-up at the other end: more than writing it did. So
//! once small pieces come one upon the other, with no input in between that they could be answers to, the pipe is left
//! alone for a moment. A single line, a prompt, a dialogue: all that is passed on at once.

use std::time::{Duration, Instant};

/// Pieces further apart than this are not one upon the other.
const GAP: Duration = Duration::from_micros(150);
/// So many in a row, and the pauses begin.
const STREAK: u32 = 16;
/// A pause. The timer's resolution makes up to twice of it.
const PAUSE: Duration = Duration::from_millis(1);
/// A piece is small below this, bytes.
const SMALL: u64 = 8 * 1024;
/// Who writes this much in one pause would be held up by further ones: the pipe holds little more.
const MUCH: u64 = 128 * 1024;
/// For so long a fast writer is read at once.
const SPARED: Duration = Duration::from_millis(50);

/// One output stream's pace.
#[derive(Debug, Default)]
pub(crate) struct Coalesce {
    streak: u32,
    last: Option<Instant>,
    until: Option<Instant>,
    spared: Option<Instant>,
}

impl Coalesce {
    /// Until when the pipe is left alone; none when it should be read now.
    pub(crate) fn pause(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// The command was given input: what it writes next may be an answer.
    pub(crate) fn handle_input(&mut self) {
        self.streak = 0;
        self.until = None;
    }

    /// The pipe was read until it was empty, and gave this many bytes, which is more than none. Whether a pause begins.
    pub(crate) fn handle_read(&mut self, now: Instant, bytes: u64) -> bool {
        let was_pausing = self.until.take().is_some();
        let close = self.last.is_some_and(|last| now.saturating_duration_since(last) < GAP);
        self.last = Some(now);
        if was_pausing {
            if bytes > MUCH {
                self.spared = Some(now + SPARED);
                self.streak = 0;
            } else if bytes < SMALL / 8 {
                // The stream has run dry.
                self.streak = 0;
            }
        } else if close && bytes < SMALL {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = 0;
        }
        let begins = self.streak >= STREAK && self.spared.is_none_or(|spared| now >= spared);
        self.until = begins.then(|| now + PAUSE);
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of `bytes` bytes, `gap` apart; how many began a pause.
    fn pauses(coalesce: &mut Coalesce, now: &mut Instant, count: u32, gap: Duration, bytes: u64) -> u32 {
        let mut begun = 0;
        for _ in 0..count {
            *now = coalesce.pause(*now).unwrap_or(*now + gap);
            begun += u32::from(coalesce.handle_read(*now, bytes));
        }
        begun
    }

    #[test]
    fn a_flood_of_small_pieces_is_collected() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        assert_eq!(pauses(&mut coalesce, &mut now, STREAK, Duration::from_micros(10), 16), 0);
        assert!(pauses(&mut coalesce, &mut now, 1, Duration::from_micros(10), 16) == 1);
        // In pauses more comes at once, and they go on.
        assert_eq!(pauses(&mut coalesce, &mut now, 100, Duration::from_micros(10), 20_000), 100);
    }

    #[test]
    fn lines_that_come_now_and_then_are_passed_on_at_once() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        assert_eq!(pauses(&mut coalesce, &mut now, 1000, Duration::from_millis(1), 16), 0);
    }

    #[test]
    fn answers_to_input_are_passed_on_at_once() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        for _ in 0..1000 {
            coalesce.handle_input();
            assert_eq!(pauses(&mut coalesce, &mut now, 1, Duration::from_micros(50), 16), 0);
        }
    }

    #[test]
    fn a_fast_writer_is_not_held_up() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        pauses(&mut coalesce, &mut now, STREAK + 1, Duration::from_micros(10), 4096);
        assert_eq!(pauses(&mut coalesce, &mut now, 1, Duration::ZERO, MUCH + 1), 0);
        assert_eq!(pauses(&mut coalesce, &mut now, 1000, Duration::from_micros(10), 4096), 0);
    }

    #[test]
    fn pauses_end_when_the_flood_does() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        pauses(&mut coalesce, &mut now, STREAK + 5, Duration::from_micros(10), 20);
        assert_eq!(pauses(&mut coalesce, &mut now, 10, Duration::from_millis(2), 20), 0);
    }
}
