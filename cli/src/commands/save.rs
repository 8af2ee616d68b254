//! `--save`: a payload into a file that is never there in part.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file on its way: written beside its target, and named only when it is complete.
pub(crate) struct Save {
    file: NamedTempFile,
    folder: PathBuf,
    overwrite: bool,
    length: u64,
}

/// Why a payload isn't stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error("{0} exists already")]
    Exists(String),
    #[error("{0} is a directory")]
    Folder(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Save {
    /// Makes the file, without its name. It vanishes unless [`Save::finish`] is reached.
    pub(crate) fn begin(folder: &Path, overwrite: bool) -> io::Result<Self> {
        // The mode of any new file, under the umask; exclusive, and of a name that can't be guessed.
        let file = tempfile::Builder::new()
            .prefix(".remora-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        Ok(Save { file, folder: folder.to_owned(), overwrite, length: 0 })
    }

    /// Whether a name may be taken, found out before the payload comes.
    pub(crate) fn check(&self, name: &str) -> Result<(), SaveError> {
        let path = self.folder.join(name);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => Err(SaveError::Folder(path.display().to_string())),
            Ok(_) if !self.overwrite => Err(SaveError::Exists(path.display().to_string())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file_mut().write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Gives the complete file its name, and tells path and length. A symbolic link of that name is replaced or refused like a
    /// file, never followed: link(2) and rename(2) act on the name itself.
    pub(crate) fn finish(self, name: &str) -> Result<(PathBuf, u64), SaveError> {
        let path = self.folder.join(name);
        let result =
            if self.overwrite { self.file.persist(&path) } else { self.file.persist_noclobber(&path) };
        match result {
            Ok(_) => Ok((path, self.length)),
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(SaveError::Exists(path.display().to_string()))
            }
            Err(failed) => Err(failed.error.into()),
        }
    }
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
        save.check("a.txt").unwrap();
        save.write(b"whole").unwrap();
        assert_eq!(save.finish("a.txt").unwrap().1, 5);
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn nothing_is_replaced_unless_told_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        std::fs::write(&victim, "old").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        for name in ["victim", "link"] {
            let save = Save::begin(folder.path(), false).unwrap();
            assert!(matches!(save.check(name), Err(SaveError::Exists(_))));
            // Nor where it came about meanwhile.
            assert!(matches!(save.finish(name), Err(SaveError::Exists(_))));
        }
        let mut save = Save::begin(folder.path(), true).unwrap();
        save.check("link").unwrap();
        save.write(b"new").unwrap();
        save.finish("link").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"old");
        assert!(!link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&link).unwrap(), b"new");
    }
}
