//! What a word could become: asked from the host, remembered until a line changes something. The editor never waits for a slow host:
//! what comes late is shown when it comes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use reedline::{Completer, CompletionResult, CompletionStatus, Partial, Span, Suggestion};
use remora_client::proto::{self, CompletionKind};
use remora_client::{Connection, session_name};
use tokio::sync::mpsc;

use super::words::{Word, word_at_end, written};
use crate::printable::escape;

/// How long the editor stands still for an answer, so that one of a near host is there at once.
const PATIENCE: Duration = Duration::from_millis(200);
/// Most questions whose answers are remembered at a time.
const REMEMBERED: usize = 256;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    kind: i32,
    word: Vec<u8>,
}

/// What is known. Shared by the editor's thread and the connection's.
#[derive(Default)]
pub(super) struct Known {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Raised by each line that is run: what was asked before says nothing of what is now.
    epoch: u64,
    answers: HashMap<Asked, Arc<Vec<Vec<u8>>>>,
    waiting: HashSet<Asked>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line is run: it may change whatever was asked for.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        state.answers.clear();
        state.waiting.clear();
    }

    fn learn(&self, epoch: u64, asked: Asked, words: Vec<Vec<u8>>) {
        let mut state = self.lock();
        if state.epoch == epoch {
            if state.answers.len() >= REMEMBERED {
                state.answers.clear();
            }
            state.waiting.remove(&asked);
            state.answers.insert(asked, Arc::new(words));
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// A question on its way to the connection.
pub(super) struct Question {
    epoch: u64,
    asked: Asked,
}

/// Asks the host what the editor wants to know, until the editor is gone.
pub(super) async fn answer(
    connection: Weak<Connection>,
    session: String,
    known: Arc<Known>,
    mut questions: mpsc::UnboundedReceiver<Question>,
) {
    while let Some(Question { epoch, asked }) = questions.recv().await {
        // Whoever closes the connection doesn't wait for what the editor still wants to know.
        let (Some(connection), known) = (connection.upgrade(), known.clone()) else { return };
        let question = proto::Complete {
            session: Some(session_name(&session, true)),
            kind: asked.kind,
            word: asked.word.clone(),
        };
        tokio::spawn(async move {
            // No answer is one without words: the next line may ask again.
            let words = connection.complete(question).await.map(|found| found.words).unwrap_or_default();
            known.learn(epoch, asked, words);
        });
    }
}

/// [`Completer`] of the line editor, on its thread.
pub(super) struct FromHost {
    known: Arc<Known>,
    questions: mpsc::UnboundedSender<Question>,
    /// What the editor is still owed.
    owed: Option<Asked>,
    /// The last answer took too long: no more standing still until one is quick again.
    slow: bool,
}

impl FromHost {
    pub(super) fn new(known: Arc<Known>, questions: mpsc::UnboundedSender<Question>) -> Self {
        FromHost { known, questions, owed: None, slow: false }
    }

    /// The answer, if it is there or comes soon.
    fn find(&mut self, asked: &Asked) -> Option<Arc<Vec<Vec<u8>>>> {
        let mut state = self.known.lock();
        if let Some(words) = state.answers.get(asked) {
            return Some(words.clone());
        }
        if state.waiting.insert(asked.clone()) {
            let question = Question { epoch: state.epoch, asked: asked.clone() };
            if self.questions.send(question).is_err() {
                return Some(Arc::default());
            }
        }
        let until = Instant::now() + if self.slow { Duration::ZERO } else { PATIENCE };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(words) = state.answers.get(asked) {
                self.slow = false;
                return Some(words.clone());
            }
            if left.is_zero() {
                self.slow = true;
                return None;
            }
            let waited = self.known.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Completer for FromHost {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let word = word_at_end(line.get(..pos).unwrap_or(line));
        let asked = Asked { kind: word.kind.into(), word: word.text.clone().into_bytes() };
        match self.find(&asked) {
            Some(words) => {
                self.owed = None;
                let (suggestions, partial) = suggested(&words, &word, pos);
                CompletionResult::fresh(suggestions).with_partial(partial)
            }
            None => {
                self.owed = Some(asked);
                CompletionResult::Pending
            }
        }
    }

    fn poll_completion(&mut self) -> CompletionStatus {
        let Some(owed) = &self.owed else { return CompletionStatus::Idle };
        if self.known.lock().answers.contains_key(owed) {
            self.owed = None;
            self.slow = false;
            CompletionStatus::Ready
        } else {
            CompletionStatus::Pending
        }
    }
}

/// Words of the host's as the editor shows and inserts them, and what all of them begin with.
fn suggested(words: &[Vec<u8>], word: &Word, pos: usize) -> (Vec<Suggestion>, Option<Partial>) {
    // What doesn't go on from the word isn't an answer to it, whatever the host says.
    let fitting: Vec<&Vec<u8>> =
        words.iter().filter(|candidate| candidate.starts_with(word.text.as_bytes())).collect();
    let Some(first) = fitting.first() else { return (Vec::new(), None) };
    let span = Span { start: word.start.min(pos), end: pos };
    let mut common = first.len();
    for candidate in &fitting {
        common = common.min(candidate.iter().zip(first.iter()).take_while(|(a, b)| a == b).count());
    }
    // Not within a character.
    while common > 0 && first.get(common).is_some_and(|byte| byte & 0xc0 == 0x80) {
        common -= 1;
    }
    let common = first.get(..common).unwrap_or_default();
    let partial =
        (common.len() > word.text.len()).then(|| Partial { span, insert: written(common, word, false) });
    let suggestions = fitting
        .iter()
        .map(|candidate| {
            let folder = candidate.ends_with(b"/");
            Suggestion {
                value: written(candidate, word, !folder),
                display_override: Some(shown(candidate, word.kind)),
                span,
                append_whitespace: !folder && word.kind != CompletionKind::Variable,
                ..Suggestion::default()
            }
        })
        .collect();
    (suggestions, partial)
}

/// A candidate in a list: of a path its last part.
fn shown(candidate: &[u8], kind: CompletionKind) -> String {
    let text = String::from_utf8_lossy(candidate);
    if matches!(kind, CompletionKind::Path | CompletionKind::Directory) {
        let body = text.strip_suffix('/').unwrap_or(&text);
        let from = body.rfind('/').map_or(0, |at| at + 1);
        return escape(text.get(from..).unwrap_or(&text));
    }
    escape(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str, words: &[&str]) -> (Vec<String>, Option<String>) {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (suggestions, partial) = suggested(&words, &word_at_end(line), line.len());
        let insert = |text: &str, start: usize| format!("{}{text}", &line[..start]);
        (
            suggestions
                .iter()
                .map(|s| insert(&s.value, s.span.start) + if s.append_whitespace { " " } else { "" })
                .collect(),
            partial.map(|partial| insert(&partial.insert, partial.span.start)),
        )
    }

    #[test]
    fn candidates_go_on_in_the_quotes_that_are_open() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(completed("ls my", &["my file"]), (vec!["ls my\\ file ".into()], some("ls my\\ file")));
        assert_eq!(completed("ls 'my", &["my file"]), (vec!["ls 'my file' ".into()], some("ls 'my file")));
        assert_eq!(completed("ls \"my", &["my $x"]), (vec!["ls \"my \\$x\" ".into()], some("ls \"my \\$x")));
        assert_eq!(completed("ls my\\ f", &["my file"]).0, ["ls my\\ file "]);
        assert_eq!(completed("cd d", &["dir/"]).0, ["cd dir/"]);
        assert_eq!(completed("cd 'my d", &["my dir/"]).0, ["cd 'my dir/"]);
        assert_eq!(completed("echo $HO", &["HOME"]).0, ["echo $HOME"]);
        assert_eq!(completed("ls ~/a", &["~/a b"]).0, ["ls ~/a\\ b "]);
    }

    #[test]
    fn what_all_begin_with_is_put_in_and_never_half_of_it() {
        assert_eq!(completed("ls a", &["a b", "a c"]).1, Some("ls a\\ ".into()));
        assert_eq!(completed("ls a", &["a$1", "a b"]).1, None);
        assert_eq!(completed("ls ", &["äx", "öx"]).1, None, "two letters that share a byte");
        assert_eq!(completed("ls x", &["other"]), (vec![], None));
    }

    #[test]
    fn a_list_shows_last_parts_and_no_control_characters() {
        assert_eq!(shown(b"/usr/bin/ls", CompletionKind::Path), "ls");
        assert_eq!(shown(b"a/b/", CompletionKind::Directory), "b/");
        assert_eq!(shown(b"x\x1b[2J", CompletionKind::Path), "x\\u{1b}[2J");
    }

    #[test]
    fn a_slow_host_is_waited_for_once_and_a_late_answer_is_taken() {
        let known = Arc::new(Known::default());
        let (questions, mut asked) = mpsc::unbounded_channel();
        let mut completer = FromHost::new(known.clone(), questions);
        let start = Instant::now();
        assert!(completer.complete("ls a", 4).is_pending());
        assert!(start.elapsed() >= PATIENCE);
        assert_eq!(completer.poll_completion(), CompletionStatus::Pending);
        let start = Instant::now();
        assert!(completer.complete("ls ab", 5).is_pending());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        let question = asked.try_recv().unwrap();
        known.learn(question.epoch, question.asked, vec![b"abc".to_vec()]);
        let question = asked.try_recv().unwrap();
        known.learn(question.epoch, question.asked, vec![b"abc".to_vec()]);
        assert_eq!(completer.poll_completion(), CompletionStatus::Ready);
        assert_eq!(completer.complete("ls ab", 5).suggestions().len(), 1);
        assert!(asked.try_recv().is_err(), "it is remembered");
        known.forget();
        assert!(completer.complete("ls ab", 5).is_pending());
        let late = asked.try_recv().unwrap();
        known.forget();
        known.learn(late.epoch, late.asked, vec![b"abc".to_vec()]);
        assert!(completer.complete("ls ab", 5).is_pending(), "an answer of before says nothing of now");
    }
}
