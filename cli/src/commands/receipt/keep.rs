//! `--receipt`: a signed receipt into a file that is never there in part, and never another job's.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use remora_client::{Class, ReceiptFile};
use remora_identity::statement::NAMESPACE;
use tempfile::NamedTempFile;

use crate::printable::escape;
use crate::terminal::{Failure, say};

/// A receipt's file before its job is over.
pub(in crate::commands) struct Keep {
    draft: NamedTempFile,
    path: PathBuf,
}

impl Keep {
    /// Finds out before the command runs whether the file can be written, and removes the receipt of another job from its place. Nothing
    /// else is replaced.
    ///
    /// # Errors
    /// A usage error.
    pub(in crate::commands) fn begin(path: &Path) -> Result<Self, Failure> {
        let shown = escape(&path.display().to_string());
        let unusable = |error: io::Error| Failure::usage(format!("can't write the receipt {shown}: {error}"));
        let is_free = is_receipt(path).map_err(unusable)?;
        if !is_free {
            return Err(Failure::usage(format!("--receipt: {shown} exists and is no receipt"))
                .with_hint("name a new file; only another receipt is replaced"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.metadata().map_err(unusable)?;
        let draft = tempfile::Builder::new()
            .prefix(".remora-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            // Its text has the draft's name in it, which means nothing to anybody.
            .map_err(|error| unusable(error.kind().into()))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        Ok(Keep { draft, path: path.to_owned() })
    }

    /// Writes the receipt, and gives the file its name.
    ///
    /// # Errors
    /// There is none, or it can't be written.
    pub(in crate::commands) fn finish(
        self,
        host: &str,
        receipt: Option<&ReceiptFile>,
    ) -> Result<(), Failure> {
        let shown = escape(&self.path.display().to_string());
        let failed = |why: &str| {
            Failure::new(Class::Internal, host, format!("the receipt is not in {shown}: {why}"))
                .with_hint("the command is over all the same; do not run it again for the receipt's sake")
        };
        let receipt = receipt.ok_or_else(|| failed("the host made none"))?;
        let Keep { mut draft, path } = self;
        let file = draft.as_file_mut();
        let written = file.write_all(&receipt.compose()).and_then(|()| file.sync_all());
        written.map_err(|error| failed(&error.to_string()))?;
        draft.persist(&path).map_err(|error| failed(&error.error.to_string()))?;
        if receipt.sshsig.is_none() {
            say(&format!(
                "{}: the receipt in {shown} is not signed: the host has shown no key on this connection",
                escape(host)
            ));
        }
        Ok(())
    }
}

/// Whether a receipt may be put there: nothing is there, or another receipt, or nothing in it.
fn is_receipt(path: &Path) -> io::Result<bool> {
    // Not opened before it is known to be a file: a FIFO would wait for its writer.
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
        Ok(there) if !there.is_file() => return Ok(false),
        Ok(_) => {}
    }
    let mut begin = Vec::new();
    File::open(path)?.take(NAMESPACE.len() as u64).read_to_end(&mut begin)?;
    Ok(begin.is_empty() || begin == NAMESPACE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_receipt_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        assert!(Keep::begin(&folder.path().join("none/r")).is_err());
        assert!(Keep::begin(folder.path()).is_err());
        drop(Keep::begin(&path).unwrap());
        assert_eq!(names(), 0);
        fs::write(&path, "a letter").unwrap();
        assert!(Keep::begin(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        fs::write(&path, format!("{NAMESPACE}\nold")).unwrap();
        let keep = Keep::begin(&path).unwrap();
        assert!(!path.exists(), "another job's receipt must not be taken for this one's");
        let receipt = ReceiptFile { statement: b"new\n".to_vec(), sshsig: None };
        keep.finish("web1", Some(&receipt)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\n");
        assert_eq!(names(), 1);
        fs::remove_file(&path).unwrap();
        assert!(Keep::begin(&path).unwrap().finish("web1", None).is_err());
        assert_eq!(names(), 0);
    }
}
