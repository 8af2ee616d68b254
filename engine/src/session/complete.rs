//! What a word could become, in a session: asked by a shell's line editor. This reads folders, and may have to wait for them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::simulate::{Machine, World};
use super::{Session, limits};

/// What kind of word is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file or directory; directories end with a slash.
    Path,
    /// A directory.
    Directory,
    /// A command.
    Command,
    /// A variable's name.
    Variable,
}

/// Words, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completions {
    /// The words; of a path with what stood before its last slash.
    pub words: Vec<Vec<u8>>,
    /// There are more.
    pub more: bool,
}

impl Session {
    /// What a word could become. The calling thread waits for the file system.
    pub fn complete(&self, wanted: Wanted, word: &[u8], shell: &Path) -> Completions {
        let state = self.state().clone();
        let mut found = Found { words: BTreeSet::new(), bytes: 0, looks: 0, more: false };
        match wanted {
            Wanted::Variable => {
                state.environment.keys().map(Vec::as_slice).chain([b"PWD".as_slice(), b"OLDPWD"]).for_each(
                    |name| {
                        found.offer(word, name, b"");
                    },
                );
            }
            Wanted::Command if !word.contains(&b'/') => {
                for name in Dialect::of(shell).words() {
                    found.offer(word, name.as_bytes(), b"");
                }
                for name in state.aliases.keys().chain(state.functions.keys()) {
                    found.offer(word, name, b"");
                }
                let path = state.variable(b"PATH").unwrap_or_default();
                for folder in path.split(|byte| *byte == b':').filter(|folder| folder.starts_with(b"/")) {
                    found.folder(Path::new(OsStr::from_bytes(folder)), b"", word, Wanted::Command);
                }
            }
            Wanted::Path | Wanted::Directory | Wanted::Command => {
                let at = word.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                let (before, start) = word.split_at(at);
                let home = |user: &str| match user {
                    "" => state.variable(b"HOME").map(<[u8]>::to_vec),
                    user => Machine::default().home_of(user),
                };
                if let Some(folder) = folder(before, &state.cwd, home) {
                    found.folder(&folder, before, start, wanted);
                }
            }
        }
        Completions { words: found.words.into_iter().collect(), more: found.more }
    }
}

/// The folder that the part of a word before its last slash means.
fn folder(before: &[u8], cwd: &[u8], home: impl Fn(&str) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let path = match before.strip_prefix(b"~") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b'/')?;
            let (user, rest) = rest.split_at(end);
            [home(std::str::from_utf8(user).ok()?)?.as_slice(), rest].concat()
        }
        None => before.to_vec(),
    };
    Some(Path::new(OsStr::from_bytes(cwd)).join(std::ffi::OsString::from_vec(path)))
}

struct Found {
    words: BTreeSet<Vec<u8>>,
    bytes: usize,
    looks: usize,
    more: bool,
}

impl Found {
    fn offer(&mut self, start: &[u8], name: &[u8], before: &[u8]) {
        if !name.starts_with(start) {
            return;
        }
        let word = [before, name].concat();
        if self.words.len() >= limits::COMPLETIONS || self.bytes + word.len() > limits::COMPLETION_BYTES {
            self.more = true;
        } else {
            self.bytes += word.len();
            self.words.insert(word);
        }
    }

    fn folder(&mut self, folder: &Path, before: &[u8], start: &[u8], wanted: Wanted) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            self.looks += 1;
            if self.more || self.looks > limits::COMPLETION_ENTRIES {
                self.more = true;
                return;
            }
            let Ok(entry) = entry else { return };
            let mut name = entry.file_name().into_vec();
            // What is hidden shows when it is asked for.
            if !name.starts_with(start) || (name.starts_with(b".") && !start.starts_with(b".")) {
                continue;
            }
            // Of a link: what it leads to.
            let Ok(kind) = std::fs::metadata(entry.path()) else {
                if wanted == Wanted::Path {
                    self.offer(start, &name, before);
                }
                continue;
            };
            if kind.is_dir() {
                if wanted == Wanted::Command && before.is_empty() && !start.contains(&b'/') {
                    continue;
                }
                name.push(b'/');
                self.offer(start, &name, before);
            } else if wanted == Wanted::Path
                || wanted == Wanted::Command && kind.permissions().mode() & 0o111 != 0
            {
                self.offer(start, &name, before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_word() {
        let home = |user: &str| match user {
            "" => Some(b"/home/ada".to_vec()),
            "root" => Some(b"/root".to_vec()),
            _ => None,
        };
        for (before, path) in [
            ("", Some("/w/")),
            ("a/", Some("/w/a/")),
            ("/etc/", Some("/etc/")),
            ("~/", Some("/home/ada/")),
            ("~root/x/", Some("/root/x/")),
            ("~none/", None),
        ] {
            assert_eq!(folder(before.as_bytes(), b"/w", home), path.map(PathBuf::from), "{before}");
        }
    }
}
