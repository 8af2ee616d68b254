//! What was typed before: a file for each target, which nobody else can read.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reedline::{
    CommandLineSearch, FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId,
    SearchDirection, SearchQuery,
};

use crate::printable::escape;

/// Most lines that are kept.
const LINES: usize = 10_000;
/// A line that begins so is not kept.
const SECRET: &str = " ";

/// What `history` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The last ones, or all.
    Last(Option<usize>),
    /// That all is forgotten.
    Forget,
}

impl Wanted {
    /// What a line asks for; none where it is another command, a complaint where it can't be done.
    pub(super) fn of(line: &str) -> Option<Result<Self, String>> {
        let rest = line.trim_start().strip_prefix("history")?;
        if !rest.chars().next().is_none_or(|c| c.is_whitespace() || "|&;<>".contains(c)) {
            return None;
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        Some(match words.as_slice() {
            [] => Ok(Wanted::Last(None)),
            ["-c"] => Ok(Wanted::Forget),
            [number] if number.parse::<usize>().is_ok() => Ok(Wanted::Last(number.parse().ok())),
            _ => Err("history: it is kept here, not on the host: history, history N and history -c are all there is"
                .to_owned()),
        })
    }
}

/// The file for a target, in the directory where remora keeps what it remembers.
pub(super) fn file(state: &Path, target: &str) -> PathBuf {
    let mut name = String::new();
    for byte in target.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'@' | b'.' => {
                name.push(char::from(byte))
            }
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    // A file's name is 255 bytes at most, and no name is a directory's.
    name.truncate(250);
    if name.bytes().all(|byte| byte == b'.') {
        name.push_str("%20");
    }
    state.join("history").join(name)
}

/// Reads a target's history, and keeps what is added to it.
///
/// # Errors
/// The file can't be made, or holds no text.
pub(super) fn open(path: &Path) -> io::Result<Kept> {
    make(path)?;
    let inner = FileBackedHistory::with_file(LINES, path.to_owned()).map_err(io::Error::other)?;
    Ok(Kept { inner, path: Some(path.to_owned()) })
}

/// Makes the file where there is none, and makes it its owner's alone.
fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Made here, so that it is never open to others, not for a moment.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// One that is forgotten with the shell.
pub(super) fn unkept() -> Kept {
    Kept { inner: FileBackedHistory::new(LINES).unwrap_or_default(), path: None }
}

/// Does what `history` is asked for, and gives the lines that it shows.
///
/// # Errors
/// Why it can't be done.
pub(super) fn answer(history: &mut dyn History, wanted: Wanted) -> Result<Vec<String>, String> {
    match wanted {
        Wanted::Last(count) => Ok(listed(history, count)),
        Wanted::Forget => match history.clear() {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Err(format!("history: {}", escape(&error.to_string()))),
        },
    }
}

/// The last of it, or all, numbered.
fn listed(history: &dyn History, count: Option<usize>) -> Vec<String> {
    let entries = history.search(SearchQuery::everything(SearchDirection::Forward, None)).unwrap_or_default();
    let mut lines = Vec::new();
    let skipped = entries.len().saturating_sub(count.unwrap_or(usize::MAX));
    for (index, entry) in entries.iter().enumerate().skip(skipped) {
        for (row, line) in entry.command_line.lines().enumerate() {
            let number = if row == 0 { (index + 1).to_string() } else { String::new() };
            lines.push(format!("{number:>5}  {}", escape(line)));
        }
    }
    lines
}

/// A history in a file, whose lines come back as they were, and without those that are to be forgotten.
pub(super) struct Kept {
    inner: FileBackedHistory,
    path: Option<PathBuf>,
}

impl History for Kept {
    fn save(&mut self, item: HistoryItem) -> reedline::Result<HistoryItem> {
        if item.command_line.starts_with(SECRET) || item.command_line.trim().is_empty() {
            return Ok(item);
        }
        self.inner.save(with_line(item, encoded)).map(|item| with_line(item, decoded))
    }

    fn load(&self, id: HistoryItemId) -> reedline::Result<HistoryItem> {
        self.inner.load(id).map(|item| with_line(item, decoded))
    }

    fn count(&self, query: SearchQuery) -> reedline::Result<i64> {
        self.inner.count(in_file(query))
    }

    fn search(&self, query: SearchQuery) -> reedline::Result<Vec<HistoryItem>> {
        let found = self.inner.search(in_file(query))?;
        Ok(found.into_iter().map(|item| with_line(item, decoded)).collect())
    }

    fn update(
        &mut self,
        id: HistoryItemId,
        updater: &dyn Fn(HistoryItem) -> HistoryItem,
    ) -> reedline::Result<()> {
        self.inner.update(id, updater)
    }

    fn clear(&mut self) -> reedline::Result<()> {
        // The file is removed, and must be there for that.
        self.private()?;
        self.inner.clear()?;
        Ok(self.private()?)
    }

    fn delete(&mut self, id: HistoryItemId) -> reedline::Result<()> {
        self.inner.delete(id)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Another shell may have forgotten it all.
        self.private()?;
        self.inner.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.inner.session()
    }
}

impl Kept {
    fn private(&self) -> io::Result<()> {
        self.path.as_deref().map_or(Ok(()), make)
    }
}

fn with_line(item: HistoryItem, change: impl Fn(&str) -> String) -> HistoryItem {
    HistoryItem { command_line: change(&item.command_line), ..item }
}

fn in_file(mut query: SearchQuery) -> SearchQuery {
    use CommandLineSearch::{Exact, Prefix, Substring};
    query.filter.command_line = query.filter.command_line.map(|search| match search {
        Prefix(text) => Prefix(encoded(&text)),
        Substring(text) => Substring(encoded(&text)),
        Exact(text) => Exact(encoded(&text)),
    });
    query
}

/// In the file `<\n>` is a line's end (reedline's NEWLINE_ESCAPE): those that are none get one more backslash.
fn encoded(text: &str) -> String {
    backslashes(text, |count| count + 1)
}

fn decoded(text: &str) -> String {
    backslashes(text, |count| (count - 1).max(1))
}

/// Changes how many backslashes stand in each `<\n>`; there is one at least.
fn backslashes(text: &str, change: impl Fn(usize) -> usize) -> String {
    let mut pieces = text.split('<');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push('<');
        let rest = piece.trim_start_matches('\\');
        let count = piece.len() - rest.len();
        let count = if count > 0 && rest.starts_with("n>") { change(count) } else { count };
        out.extend(std::iter::repeat_n('\\', count));
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_file_of_its_own_and_none_leaves_the_folder() {
        let state = Path::new("/s");
        let name = |target| file(state, target).file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name("ada@web1"), "ada@web1");
        assert_eq!(name("ada@web1:7000"), "ada@web1%3a7000");
        assert_eq!(name("header://h:1"), "header%3a%2f%2fh%3a1");
        assert_eq!(name(".."), "..%20");
        assert_ne!(name("a/b"), name("a%2fb"));
        assert!(name(&"/".repeat(500)).len() <= 255);
        for target in ["../../x", "..", ".", "", "/"] {
            assert_eq!(file(state, target).parent(), Some(Path::new("/s/history")));
        }
    }

    #[test]
    fn it_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "web1");
        let mut history = open(&path).unwrap();
        for line in ["ls", "cat <<E\na\nE", "ls\u{1b}"] {
            history.save(HistoryItem::from_command_line(line)).unwrap();
        }
        drop(history);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let again = open(&path).unwrap();
        assert_eq!(
            listed(&again, None),
            ["    1  ls", "    2  cat <<E", "       a", "       E", "    3  ls\\u{1b}"]
        );
    }

    #[test]
    fn what_history_is_asked_for() {
        for (line, wanted) in [
            ("history", Wanted::Last(None)),
            (" history  3 ", Wanted::Last(Some(3))),
            ("history -c", Wanted::Forget),
        ] {
            assert_eq!(Wanted::of(line), Some(Ok(wanted)), "{line}");
        }
        for line in
            ["history | tail -3", "history|cat", "history > x", "history; ls", "history -d 3", "history 1 2"]
        {
            assert!(Wanted::of(line).is_some_and(|wanted| wanted.is_err()), "{line}");
        }
        for line in ["history.sh", "historyx", "history=3", "history() { :; }", "ls", "echo history", ""] {
            assert_eq!(Wanted::of(line), None, "{line}");
        }
    }

    #[test]
    fn it_is_shown_in_part_and_forgotten_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "web1");
        let mut history = open(&path).unwrap();
        for line in ["one", "two", " secret", "three"] {
            history.save(HistoryItem::from_command_line(line)).unwrap();
        }
        assert_eq!(answer(&mut history, Wanted::Last(Some(2))).unwrap(), ["    2  two", "    3  three"]);
        assert_eq!(answer(&mut history, Wanted::Last(Some(9))).unwrap().len(), 3);
        history.sync().unwrap();
        // Of two at once, one of which has forgotten it already.
        let mut other = open(&path).unwrap();
        for history in [&mut history, &mut other] {
            assert_eq!(answer(history, Wanted::Forget), Ok(Vec::new()));
            assert_eq!(listed(history, None), [""; 0]);
        }
        other.save(HistoryItem::from_command_line("four")).unwrap();
        other.sync().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "web1");
        let lines = [
            "a\nb",
            "a<\\n>b",
            "<\\\\n>",
            "<\\\\\\n><\\n>\n<\\n>",
            "echo \\n> <<\\n>",
            "<\\m>",
            "<n>",
            "<\\",
        ];
        let mut history = open(&path).unwrap();
        for line in lines {
            let saved = history.save(HistoryItem::from_command_line(line)).unwrap();
            assert_eq!(saved.command_line, line);
        }
        drop(history);
        let again = open(&path).unwrap();
        let all = again.search(SearchQuery::everything(SearchDirection::Forward, None)).unwrap();
        assert_eq!(all.iter().map(|item| item.command_line.as_str()).collect::<Vec<_>>(), lines);
        let search = CommandLineSearch::Exact(lines[1].to_owned());
        let found = again
            .search(SearchQuery::last_with_search(reedline::SearchFilter::from_text_search(search, None)));
        assert_eq!(found.unwrap()[0].command_line, lines[1]);
    }

    #[test]
    fn it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "web1");
        let mut history = open(&path).unwrap();
        for number in 0..LINES + 50 {
            history.save(HistoryItem::from_command_line(format!("echo {number}"))).unwrap();
        }
        drop(history);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), LINES);
    }
}
