//! `--save`: a payload into a file that is never there in part.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::printable::escape;

/// What a payload is called whose peer names no file that could be.
pub(crate) const NAMELESS: &str = "reply";
/// How often a name that is taken is numbered.
const NUMBERS: u32 = 999;
/// Longest name of a file, bytes (`NAME_MAX` of Linux' file systems).
const LONGEST: usize = 255;
/// What is taken for an extension, and stays behind the number: no longer than this, bytes.
const EXTENSION: usize = 32;

/// A file on its way: written beside its target, and named only when it is complete.
pub(crate) struct Save {
    file: NamedTempFile,
    folder: PathBuf,
    overwrite: bool,
    length: u64,
}

/// A payload that has its name.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    /// Why it isn't the name asked for.
    pub(crate) why: Option<String>,
}

/// Why a payload has no name. The command ran, so what it printed is kept all the same.
#[derive(Debug, thiserror::Error)]
#[error("it can't be named, and is left in {}", escape(&kept.display().to_string()))]
pub(crate) struct SaveError {
    kept: PathBuf,
    #[source]
    source: io::Error,
}

impl Save {
    /// Makes the file, without its name. It vanishes unless [`Save::finish`] is reached.
    pub(crate) fn begin(folder: &Path, overwrite: bool) -> io::Result<Self> {
        if !folder.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"));
        }
        // The mode of any new file, under the umask; exclusive, and of a name that can't be guessed.
        let file = tempfile::Builder::new()
            .prefix(".remora-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            // Its text has that name in it, which means nothing to anybody.
            .map_err(|error| io::Error::from(error.kind()))?;
        Ok(Save { file, folder: folder.to_owned(), overwrite, length: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file_mut().write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Gives the complete file its name, or the next one that is free: the command ran, and may not be run again for the sake
    /// of a name. A symbolic link of that name is replaced or passed over like a file, never followed: link(2) and rename(2)
    /// act on the name itself.
    pub(crate) fn finish(self, name: &str) -> Result<Stored, SaveError> {
        let Save { mut file, folder, overwrite, length } = self;
        let mut why = None;
        // A file system may not like the name; then one that any likes.
        for name in [name, NAMELESS] {
            for number in 0..=NUMBERS {
                let path = folder.join(numbered(name, number));
                let result = if overwrite && number == 0 {
                    file.persist(&path)
                } else {
                    file.persist_noclobber(&path)
                };
                let failed = match result {
                    Ok(_) => return Ok(Stored { path, length, why }),
                    Err(failed) => failed,
                };
                file = failed.file;
                let shown = escape(&path.display().to_string());
                let taken = match failed.error.kind() {
                    io::ErrorKind::AlreadyExists => format!("{shown} exists already"),
                    io::ErrorKind::IsADirectory => format!("{shown} is a directory"),
                    _ => {
                        why.get_or_insert(format!("{shown} can't be made: {}", failed.error));
                        break;
                    }
                };
                why.get_or_insert(taken);
            }
        }
        let source = io::Error::other(why.unwrap_or_default());
        match file.keep() {
            Ok((_, kept)) => Err(SaveError { kept, source }),
            Err(failed) => Err(SaveError { kept: failed.file.path().to_owned(), source }),
        }
    }
}

/// `a.txt`, `a.1.txt`, `a.2.txt`, …: as long as a name may be.
fn numbered(name: &str, number: u32) -> String {
    if number == 0 {
        return name.to_owned();
    }
    match name.rsplit_once('.').filter(|(_, extension)| extension.len() <= EXTENSION) {
        Some((stem, extension)) => with_tail(stem, &format!(".{number}.{extension}")),
        None => with_tail(name, &format!(".{number}")),
    }
}

/// What a complete payload is called that isn't what its peer announced.
pub(crate) fn doubtful(name: &str) -> String {
    with_tail(name, ".part")
}

/// A name with something behind it, cut where it would be too long.
fn with_tail(name: &str, tail: &str) -> String {
    let end = name.floor_char_boundary(LONGEST.saturating_sub(tail.len()));
    format!("{}{tail}", name.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_has_its_name_only_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let mut save = Save::begin(folder.path(), false).unwrap();
        save.write(b"half").unwrap();
        assert!(!folder.path().join("a.txt").exists());
        drop(save);
        assert_eq!(names(folder.path()), [""; 0]);
        let mut save = Save::begin(folder.path(), false).unwrap();
        save.write(b"whole").unwrap();
        assert_eq!(save.finish("a.txt").unwrap().length, 5);
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn nothing_is_replaced_unless_told_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        std::fs::write(&victim, "old").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        for name in ["victim", "link"] {
            let stored = Save::begin(folder.path(), false).unwrap().finish(name).unwrap();
            assert_eq!(stored.path, folder.path().join(format!("{name}.1")));
            assert!(stored.why.unwrap().ends_with("exists already"));
        }
        let mut save = Save::begin(folder.path(), true).unwrap();
        save.write(b"new").unwrap();
        save.finish("link").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"old");
        assert!(!link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&link).unwrap(), b"new");
    }

    #[test]
    fn a_name_that_cannot_be_is_another() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d.x")).unwrap();
        for (name, overwrite, expected) in [
            ("d.x", true, "d.1.x"),
            ("d.x", true, "d.2.x"),
            ("no/such", false, "reply"),
            ("no/such", false, "reply.1"),
        ] {
            let stored = Save::begin(folder.path(), overwrite).unwrap().finish(name).unwrap();
            assert_eq!(stored.path, folder.path().join(expected));
            assert!(stored.why.is_some());
        }
    }

    #[test]
    fn numbers_keep_the_extension_and_the_length() {
        assert_eq!(numbered("a.tar.gz", 7), "a.tar.7.gz");
        assert_eq!(numbered("reply", 999), "reply.999");
        let long = "é".repeat(127);
        assert_eq!(numbered(&long, 1), "é".repeat(126) + ".1");
        assert_eq!(numbered(&format!("a.{long}"), 10).len(), LONGEST);
        assert_eq!(doubtful("a.txt"), "a.txt.part");
    }

    #[test]
    fn where_no_name_is_free_the_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.txt", NAMELESS] {
            for number in 0..=NUMBERS {
                std::fs::write(folder.path().join(numbered(name, number)), "").unwrap();
            }
        }
        let mut save = Save::begin(folder.path(), false).unwrap();
        save.write(b"kept").unwrap();
        let error = save.finish("a.txt").unwrap_err();
        assert_eq!(std::fs::read(error.kept).unwrap(), b"kept");
    }
}
