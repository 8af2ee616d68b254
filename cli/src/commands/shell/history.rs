//! What was typed before: a file for each target, which nobody else can read.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reedline::{FileBackedHistory, History, SearchDirection, SearchQuery};

use crate::printable::escape;

/// Most lines that are kept.
const LINES: usize = 10_000;
/// A line that begins so is not kept.
pub(super) const SECRET: &str = " ";

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
pub(super) fn open(path: &Path) -> io::Result<FileBackedHistory> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Made here, so that it is never open to others, not for a moment.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    drop(file);
    FileBackedHistory::with_file(LINES, path.to_owned()).map_err(io::Error::other)
}

/// One that is forgotten with the shell.
pub(super) fn unkept() -> FileBackedHistory {
    FileBackedHistory::new(LINES).unwrap_or_default()
}

/// All of it, numbered, as `history` shows it.
pub(super) fn listed(history: &dyn History) -> Vec<String> {
    let entries = history.search(SearchQuery::everything(SearchDirection::Forward, None)).unwrap_or_default();
    let mut lines = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        for (row, line) in entry.command_line.lines().enumerate() {
            let number = if row == 0 { (index + 1).to_string() } else { String::new() };
            lines.push(format!("{number:>5}  {}", escape(line)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use reedline::HistoryItem;

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
            listed(&again),
            ["    1  ls", "    2  cat <<E", "       a", "       E", "    3  ls\\u{1b}"]
        );
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
