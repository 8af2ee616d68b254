//! The jobs that don't have the terminal: stopped ones, and those that go on in the background.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use remora_client::{Finished, Job, JobError, Outcome, Reader, Writer, outcome_of};

use super::super::ending::killed_by;
use super::keys::Sent;
use super::screen::Of;
use crate::printable::escape;

/// Longest piece of a line that is shown before its end, bytes.
const LINE: usize = 4096;

/// A job with its streams.
pub(super) struct Live {
    /// Its id, in hexadecimal digits.
    pub(super) id: String,
    pub(super) job: Job,
    pub(super) stdin: Writer,
    pub(super) stdout: Reader,
    pub(super) stderr: Reader,
    /// As it was typed.
    pub(super) line: String,
    pub(super) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Running,
}

struct Entry {
    number: u32,
    live: Live,
    state: State,
    /// Whether its output streams are read to their ends.
    ended: (bool, bool),
    lines: Lines,
}

/// What happened to one of them.
pub(super) enum News {
    /// The job with this number wrote something.
    Output(u32, Of, Bytes),
    /// It was stopped, goes on, or has ended: [`Jobs::notices`] says so.
    Changed,
}

/// All of them.
#[derive(Default)]
pub(super) struct Jobs {
    list: Vec<Entry>,
    /// What is to be told before the next prompt.
    notices: Vec<String>,
}

/// `%n`, `n`, `%+`, `%%`, `%-`, or nothing: which job.
fn index_of(list: &[Entry], word: Option<&str>, verb: &str) -> Result<usize, String> {
    let last = list.len().checked_sub(1).ok_or_else(|| format!("{verb}: no current job"))?;
    match word.map(|word| (word, word.strip_prefix('%').unwrap_or(word))) {
        None | Some((_, "" | "+" | "%")) => Ok(last),
        Some((_, "-")) => Ok(last.saturating_sub(1)),
        Some((word, number)) => number
            .parse()
            .ok()
            .and_then(|number: u32| list.iter().position(|entry| entry.number == number))
            .ok_or_else(|| format!("{verb}: {}: no such job", escape(word))),
    }
}

impl Jobs {
    /// Takes in a job that was stopped, and gives what is to be said of it.
    pub(super) fn stopped(&mut self, live: Live) -> String {
        self.add(live, State::Stopped);
        self.listed().pop().unwrap_or_default()
    }

    /// Takes in a job that was started for the background, and gives what is to be said of it.
    pub(super) fn started(&mut self, live: Live) -> String {
        let line = shown(&live.line);
        let number = self.add(live, State::Running);
        format!("[{number}] {line} &")
    }

    fn add(&mut self, live: Live, state: State) -> u32 {
        let number = self.list.iter().map(|entry| entry.number).max().unwrap_or(0) + 1;
        self.list.push(Entry { number, live, state, ended: (false, false), lines: Lines::default() });
        number
    }

    /// Gives one back, to have the terminal again, and what of its output had no line's end.
    ///
    /// # Errors
    /// There is none, in the words of a shell.
    pub(super) fn take(&mut self, word: Option<&str>) -> Result<(Live, String), String> {
        let index = index_of(&self.list, word, "fg")?;
        let mut entry = self.list.remove(index);
        Ok((entry.live, entry.lines.finish()))
    }

    /// The lines that end in these bytes of a job's.
    pub(super) fn lines(&mut self, number: u32, bytes: &[u8]) -> Vec<String> {
        let entry = self.list.iter_mut().find(|entry| entry.number == number);
        entry.map(|entry| entry.lines.take(bytes)).unwrap_or_default()
    }

    /// Lets one go on where it is, and gives what is to be said of it.
    ///
    /// # Errors
    /// There is none, or it does already, in the words of a shell.
    pub(super) fn resume(&mut self, word: Option<&str>) -> Result<String, String> {
        let index = match word {
            // Without a word it is the last one that is stopped.
            None => self.list.iter().rposition(|entry| entry.state == State::Stopped),
            Some(_) => None,
        };
        let index = index.map_or_else(|| index_of(&self.list, word, "bg"), Ok)?;
        let count = self.list.len();
        let Some(entry) = self.list.get_mut(index) else { return Err("bg: no current job".to_owned()) };
        if entry.state == State::Running {
            return Err(format!("bg: job {} already in background", entry.number));
        }
        entry.state = State::Running;
        entry.live.job.resume();
        Ok(format!("[{}]{} {} &", entry.number, mark(index, count), shown(&entry.live.line)))
    }

    /// Gives one out that is to be detached; it goes on, if it was stopped.
    ///
    /// # Errors
    /// There is none, in the words of a shell.
    pub(super) fn release(&mut self, number: u32) -> Result<Released, String> {
        let index = index_of(&self.list, Some(&number.to_string()), "disown")?;
        let entry = self.list.remove(index);
        if entry.state == State::Stopped {
            entry.live.job.resume();
        }
        Ok(Released { index, entry })
    }

    /// Takes back what was not detached.
    pub(super) fn take_back(&mut self, released: Released) {
        let Released { index, mut entry } = released;
        entry.state = State::Running;
        self.list.insert(index.min(self.list.len()), entry);
    }

    /// The numbers of the jobs that words mean, each once: `-a` all of them, no word the current one.
    ///
    /// # Errors
    /// One means none; then none is meant.
    pub(super) fn chosen(&self, words: &[&str], verb: &str) -> Result<Vec<u32>, String> {
        let number = |index: usize| self.list.get(index).map(|entry| entry.number);
        let indices: Vec<usize> = match words {
            ["-a"] => (0..self.list.len()).collect(),
            [] => vec![index_of(&self.list, None, verb)?],
            words => {
                words.iter().map(|word| index_of(&self.list, Some(word), verb)).collect::<Result<_, _>>()?
            }
        };
        let mut numbers: Vec<u32> = indices.into_iter().filter_map(number).collect();
        let mut seen = Vec::new();
        numbers.retain(|number| {
            !seen.contains(number) && {
                seen.push(*number);
                true
            }
        });
        Ok(numbers)
    }

    /// A line for each.
    pub(super) fn listed(&self) -> Vec<String> {
        let count = self.list.len();
        self.list
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                let (state, tail) = match entry.state {
                    State::Stopped => ("Stopped", ""),
                    State::Running => ("Running", " &"),
                };
                told(entry.number, mark(index, count), state, &entry.live.line, tail)
            })
            .collect()
    }

    /// What is to be told before the next prompt.
    pub(super) fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// What to say to who leaves, if any are left behind.
    pub(super) fn left_behind(&self) -> Option<&'static str> {
        if self.list.iter().any(|entry| entry.state == State::Stopped) {
            Some("there are stopped jobs")
        } else {
            (!self.list.is_empty()).then_some("there are running jobs")
        }
    }

    /// Waits until something happens to one of them.
    pub(super) async fn news(&mut self) -> News {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        let count = self.list.len();
        for index in 0..count {
            let Some(entry) = self.list.get_mut(index) else { break };
            for (of, reader, ended) in [
                (Of::Stdout, &mut entry.live.stdout, &mut entry.ended.0),
                (Of::Stderr, &mut entry.live.stderr, &mut entry.ended.1),
            ] {
                while !*ended {
                    match reader.poll_next(cx) {
                        Poll::Ready(Some(bytes)) => {
                            return Poll::Ready(News::Output(entry.number, of, bytes));
                        }
                        Poll::Ready(None) => *ended = true,
                        Poll::Pending => break,
                    }
                }
            }
            let result = match entry.ended {
                (true, true) => pin!(entry.live.job.wait()).poll(cx),
                _ => Poll::Pending,
            };
            if let Poll::Ready(result) = result {
                let mut entry = self.list.remove(index);
                if !entry.lines.is_empty() {
                    self.notices.push(entry.lines.finish());
                }
                let how = how_it_ended(&result);
                self.notices.push(told(entry.number, mark(index, count), &how, &entry.live.line, ""));
                return Poll::Ready(News::Changed);
            }
            let state = match pin!(entry.live.job.stopped()).poll(cx) {
                Poll::Ready(_) => State::Stopped,
                Poll::Pending => State::Running,
            };
            if state != entry.state {
                entry.state = state;
                if state == State::Stopped {
                    let text = told(entry.number, mark(index, count), "Stopped", &entry.live.line, "");
                    self.notices.push(text);
                }
                return Poll::Ready(News::Changed);
            }
        }
        Poll::Pending
    }
}

/// One that is about to be detached.
pub(super) struct Released {
    index: usize,
    entry: Entry,
}

impl Released {
    /// Its id, in hexadecimal digits.
    pub(super) fn id(&self) -> &str {
        &self.entry.live.id
    }

    /// It is detached: what had come of it by then, in lines.
    pub(super) async fn drain(mut self) -> Vec<String> {
        let Live { job, stdout, stderr, .. } = &mut self.entry.live;
        let mut lines = Vec::new();
        for reader in [stdout, stderr] {
            while let Some(bytes) = reader.next().await {
                lines.extend(self.entry.lines.take(&bytes));
            }
        }
        // That it is, is all there is to know.
        let _ = job.wait().await;
        if !self.entry.lines.is_empty() {
            lines.push(self.entry.lines.finish());
        }
        lines
    }

    /// What is to be said of it.
    pub(super) fn told(&self) -> String {
        told(self.entry.number, ' ', "Detached", &self.entry.live.line, "")
    }
}

/// Cuts what a job writes into lines, since whole lines alone can be shown above a prompt.
#[derive(Default)]
struct Lines {
    piece: Vec<u8>,
}

impl Lines {
    /// The lines that end in these bytes.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.piece.len() >= LINE {
                lines.push(self.finish());
            }
            if *byte != b'\n' {
                self.piece.push(*byte);
            }
        }
        lines
    }

    /// What has no end yet.
    fn finish(&mut self) -> String {
        let piece = std::mem::take(&mut self.piece);
        String::from_utf8_lossy(&piece).trim_end_matches('\r').to_owned()
    }

    fn is_empty(&self) -> bool {
        self.piece.is_empty()
    }
}

/// `+` for the current job, `-` for the one before.
fn mark(index: usize, count: usize) -> char {
    match count - index {
        1 => '+',
        2 => '-',
        _ => ' ',
    }
}

/// As bash tells it.
fn told(number: u32, mark: char, state: &str, line: &str, tail: &str) -> String {
    format!("[{number}]{mark}  {state:<22}  {}{tail}", shown(line))
}

fn shown(line: &str) -> String {
    escape(&line.replace('\n', "; "))
}

fn how_it_ended(result: &Result<Finished, JobError>) -> String {
    match result.as_ref().map(|finished| outcome_of(&finished.receipt)) {
        Ok(Outcome::Exited(0)) => "Done".to_owned(),
        Ok(Outcome::Exited(status)) => format!("Exit {status}"),
        Ok(Outcome::Signaled { signal, .. }) => killed_by(signal).replace("the command was k", "K"),
        Ok(other) => other.name().to_owned(),
        Err(JobError::Detached(_)) => "Detached".to_owned(),
        Err(_) => "Lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_told_as_bash_tells_them() {
        assert_eq!(told(1, '+', "Stopped", "sleep 100", ""), "[1]+  Stopped                 sleep 100");
        assert_eq!(told(12, '-', "Running", "sleep 100", " &"), "[12]-  Running                 sleep 100 &");
        assert_eq!(shown("cat <<E\nx\u{1b}\nE"), "cat <<E; x\\u{1b}; E");
        assert_eq!((mark(1, 2), mark(0, 2), mark(0, 3)), ('+', '-', ' '));
    }

    #[test]
    fn output_is_cut_into_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\r\nb"), ["a"]);
        assert_eq!(lines.take(b"c\n\nd"), ["bc", ""]);
        assert!(!lines.is_empty());
        assert_eq!(lines.finish(), "d");
        assert_eq!(lines.take(&vec![b'x'; LINE * 2 + 1]).len(), 2);
    }
}
