//! In which order stdout and stderr were read: how many bytes of the one, then of the other.

use std::collections::VecDeque;

use crate::request::Output;

/// Runs that are kept at the most. Beyond it neighbours are taken together: how much there was of each stays true, and which came
/// first within so little doesn't.
const MOST: usize = 4096;

/// Bytes of one stream that were read without any of the other in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which stream.
    pub output: Output,
    /// How many; less than 2⁶³.
    pub length: u64,
}

/// The bit that says which stream it was.
const IS_STDERR: u64 = 1 << 63;

impl Run {
    /// Eight bytes, little-endian; the highest bit is set for stderr.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        let bit = if self.output == Output::Stderr { IS_STDERR } else { 0 };
        (self.length & !IS_STDERR | bit).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        let run = u64::from_le_bytes(bytes);
        let output = if run & IS_STDERR == 0 { Output::Stdout } else { Output::Stderr };
        Run { output, length: run & !IS_STDERR }
    }
}

/// Runs, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Runs(VecDeque<Run>);

impl Runs {
    /// Adds what was just read.
    pub(crate) fn push(&mut self, output: Output, length: u64) {
        if length == 0 {
            return;
        }
        match self.0.back_mut() {
            Some(last) if last.output == output => last.length += length,
            _ => self.0.push_back(Run { output, length }),
        }
        if self.0.len() > MOST {
            self.fold();
        }
    }

    /// All of them.
    pub(crate) fn into_vec(self) -> Vec<Run> {
        self.0.into()
    }

    /// Adds what was read elsewhere.
    pub(crate) fn append(&mut self, runs: Runs) {
        runs.0.into_iter().for_each(|run| self.push(run.output, run.length));
    }

    /// Takes the first run, at most so many bytes of each stream; none where there is none of its stream to be had.
    pub(crate) fn take(&mut self, most: impl FnOnce(Output) -> u64) -> Option<Run> {
        let first = self.0.front_mut()?;
        let length = first.length.min(most(first.output));
        let taken = Run { output: first.output, length };
        first.length -= length;
        if first.length == 0 {
            self.0.pop_front();
        }
        (length > 0).then_some(taken)
    }

    /// Puts back what was taken last.
    pub(crate) fn put_back(&mut self, run: Run) {
        match self.0.front_mut() {
            Some(first) if first.output == run.output => first.length += run.length,
            _ => self.0.push_front(run),
        }
    }

    /// Each four neighbours become two.
    fn fold(&mut self) {
        let mut folded: VecDeque<Run> = VecDeque::with_capacity(MOST);
        let runs = std::mem::take(&mut self.0);
        for four in Vec::from(runs).chunks(4) {
            for output in Output::ALL {
                let length = four.iter().filter(|run| run.output == output).map(|run| run.length).sum();
                match folded.back_mut() {
                    Some(last) if last.output == output => last.length += length,
                    _ if length > 0 => folded.push_back(Run { output, length }),
                    _ => {}
                }
            }
        }
        self.0 = folded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(runs: &mut Runs) -> Vec<(Output, u64)> {
        std::iter::from_fn(|| runs.take(|_| u64::MAX).map(|run| (run.output, run.length))).collect()
    }

    #[test]
    fn neighbours_of_one_stream_are_one_run() {
        let mut runs = Runs::default();
        for (output, length) in
            [(Output::Stdout, 3), (Output::Stdout, 4), (Output::Stderr, 0), (Output::Stderr, 1)]
        {
            runs.push(output, length);
        }
        assert_eq!(runs.take(|_| 2), Some(Run { output: Output::Stdout, length: 2 }));
        assert_eq!(runs.take(|_| 0), None);
        let taken = runs.take(|_| 1).unwrap();
        runs.put_back(taken);
        assert_eq!(all(&mut runs), [(Output::Stdout, 5), (Output::Stderr, 1)]);
    }

    #[test]
    fn however_often_they_change_they_are_bounded_and_their_sums_are_true() {
        let mut runs = Runs::default();
        for _ in 0..100_000 {
            runs.push(Output::Stdout, 1);
            runs.push(Output::Stderr, 2);
        }
        assert!(runs.0.len() <= MOST);
        let all = all(&mut runs);
        let sum = |wanted| all.iter().filter(|(output, _)| *output == wanted).map(|(_, n)| n).sum::<u64>();
        assert_eq!((sum(Output::Stdout), sum(Output::Stderr)), (100_000, 200_000));
    }
}
