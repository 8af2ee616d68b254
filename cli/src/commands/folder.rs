//! A command that is kept in a folder: `stdout`, `stderr`, `order` and, once all of it is there, `receipt`.
//!
//! `order` is lines of text, `stdout 120` or `stderr 7`: so many bytes of that stream were read next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use remora_client::{Class, Finished, ReceiptFile};

use crate::printable::escape;
use crate::terminal::{Failure, say};

/// Its files.
pub(super) const STDOUT: &str = "stdout";
pub(super) const STDERR: &str = "stderr";
pub(super) const ORDER: &str = "order";
pub(super) const RECEIPT: &str = "receipt";

/// Longest `order` that is read, bytes.
const ORDER_MAX: u64 = 256 * 1024 * 1024;

/// So many bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) is_stderr: bool,
    pub(super) length: u64,
}

/// The folder of a command that isn't over.
pub(super) struct Folder {
    path: PathBuf,
    order: Vec<Run>,
}

/// A file that takes what a stream carries.
pub(super) struct Copy {
    file: File,
    /// Why it isn't all of it.
    failed: Option<io::Error>,
}

impl Copy {
    /// Takes bytes; where they can't be written, nothing is from then on.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

impl Folder {
    /// Makes the folder and the files of both streams. One that is there must be empty.
    ///
    /// # Errors
    /// A usage error.
    pub(super) fn begin(path: &Path) -> Result<(Self, [Copy; 2]), Failure> {
        let shown = escape(&path.display().to_string());
        let begin = || -> io::Result<[Copy; 2]> {
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read_dir(path)?.next().is_some() {
                        return Err(io::Error::new(error.kind(), "there is something in it"));
                    }
                }
                made => made?,
            }
            let copy = |name| Ok::<_, io::Error>(Copy { file: create(&path.join(name))?, failed: None });
            Ok([copy(STDOUT)?, copy(STDERR)?])
        };
        let copies = begin().map_err(|error| {
            Failure::usage(format!("--keep: {shown} can't be used: {error}"))
                .with_hint("name a new directory; it is made")
        })?;
        Ok((Folder { path: path.to_owned(), order: Vec::new() }, copies))
    }

    /// What came next.
    pub(super) fn add(&mut self, run: Run) {
        match self.order.last_mut() {
            Some(last) if last.is_stderr == run.is_stderr => last.length += run.length,
            _ if run.length > 0 => self.order.push(run),
            _ => {}
        }
    }

    /// Completes it by what a job's receipt tells.
    ///
    /// # Errors
    /// As [`Folder::finish`], or not all of the output was read.
    pub(super) fn finish_with(
        mut self,
        host: &str,
        copies: [Copy; 2],
        finished: &Finished,
    ) -> Result<(), Failure> {
        if let Some(stream) = finished.unchecked.first() {
            return Err(self.failed(host, &format!("{stream} was closed here before its end")));
        }
        let both = [false, true].into_iter().cycle();
        for (is_stderr, length) in both.zip(&finished.receipt.order) {
            self.add(Run { is_stderr, length: *length });
        }
        self.finish(host, copies, finished.kept.as_ref())
    }

    fn failed(&self, host: &str, why: &str) -> Failure {
        let shown = escape(&self.path.display().to_string());
        Failure::new(Class::Internal, host, format!("the command is not kept whole in {shown}: {why}"))
            .with_hint("the command is over all the same; do not run it again for that alone")
    }

    /// Completes it.
    ///
    /// # Errors
    /// It can't be.
    pub(super) fn finish(
        self,
        host: &str,
        copies: [Copy; 2],
        receipt: Option<&ReceiptFile>,
    ) -> Result<(), Failure> {
        let failed = |why: String| self.failed(host, &why);
        for copy in copies {
            if let Some(error) = copy.failed {
                return Err(failed(format!("its output can't be written: {error}")));
            }
            copy.file.sync_all().map_err(|error| failed(format!("its output can't be synced: {error}")))?;
        }
        let receipt = receipt.ok_or_else(|| failed("the host made no receipt".to_owned()))?;
        let order: String = self.order.iter().map(Run::line).collect();
        let write = |name: &str, bytes: &[u8]| -> io::Result<()> {
            let mut file = create(&self.path.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        // The receipt last: where it is, all is.
        let draft = format!(".{RECEIPT}.part");
        let written = write(ORDER, order.as_bytes())
            .and_then(|()| write(&draft, &receipt.compose()))
            .and_then(|()| fs::rename(self.path.join(&draft), self.path.join(RECEIPT)))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.map_err(|error| failed(error.to_string()))?;
        if receipt.sshsig.is_none() {
            let (host, shown) = (escape(host), escape(&self.path.display().to_string()));
            say(&format!(
                "{host}: the receipt in {shown} is not signed: the host has shown no key on this connection"
            ));
        }
        Ok(())
    }
}

impl Run {
    fn line(&self) -> String {
        format!("{} {}\n", if self.is_stderr { STDERR } else { STDOUT }, self.length)
    }

    fn parse(line: &str) -> Option<Self> {
        let (stream, length) = line.split_once(' ')?;
        let is_stderr = match stream {
            STDOUT => false,
            STDERR => true,
            _ => return None,
        };
        Some(Run { is_stderr, length: length.parse().ok()? })
    }
}

/// The order that a folder tells; the inner error is the number of a line that makes no sense.
pub(super) fn read_order(path: &Path) -> io::Result<Result<Vec<Run>, usize>> {
    let mut text = String::new();
    File::open(path.join(ORDER))?.take(ORDER_MAX).read_to_string(&mut text)?;
    Ok(text.lines().enumerate().map(|(at, line)| Run::parse(line).ok_or(at + 1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_stream_are_one_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kept");
        let (mut folder, mut copies) = Folder::begin(&path).unwrap();
        copies[0].take(b"abc");
        for (is_stderr, length) in [(false, 1), (false, 2), (true, 0), (true, 5), (false, 0)] {
            folder.add(Run { is_stderr, length });
        }
        let receipt = ReceiptFile { statement: b"s\n".to_vec(), sshsig: None };
        folder.finish("web1", copies, Some(&receipt)).unwrap();
        assert_eq!(fs::read_to_string(path.join(ORDER)).unwrap(), "stdout 3\nstderr 5\n");
        assert_eq!(fs::read(path.join(STDOUT)).unwrap(), b"abc");
        assert_eq!(read_order(&path).unwrap().unwrap().len(), 2);
        fs::write(path.join(ORDER), "stdout 3\nstdin 4\n").unwrap();
        assert_eq!(read_order(&path).unwrap(), Err(2));
        // What is there isn't touched.
        assert!(Folder::begin(&path).is_err());
    }

    #[test]
    fn without_a_receipt_it_is_not_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kept");
        let (folder, copies) = Folder::begin(&path).unwrap();
        assert!(folder.finish("web1", copies, None).is_err());
        assert!(!path.join(RECEIPT).exists());
    }
}
