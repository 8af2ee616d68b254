//! A receipt from its file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use remora_client::ReceiptFile;
use remora_identity::limits::RECEIPT_FILE_MAX;
use remora_identity::statement::Statement;

use crate::printable::{chain, escape};
use crate::terminal::{Failure, hint, say};

/// What is wrong with a receipt.
#[derive(Debug)]
pub(in crate::commands) struct Wrong {
    pub(super) text: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(in crate::commands) fn new(text: impl Into<String>) -> Self {
        Wrong { text: text.into(), hint: None }
    }

    pub(in crate::commands) fn with_hint(self, hint: impl Into<String>) -> Self {
        Wrong { hint: Some(hint.into()), ..self }
    }

    pub(in crate::commands) fn print(&self, file: &Path) {
        say(&format!("{}: {}", escape(&file.display().to_string()), self.text));
        if let Some(text) = &self.hint {
            hint(text);
        }
    }
}

/// Opens a file that was named.
///
/// # Errors
/// A usage error.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    };
    open().map_err(|error: io::Error| unreadable(path, &error))
}

/// Opens what must be a file as any: whoever made it may have put a pipe there, which would wait for ever, or what has no end.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

pub(in crate::commands) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("can't read {}: {error}", escape(&path.display().to_string())))
}

/// Reads a receipt, whose signature is not yet looked at.
///
/// # Errors
/// A usage error where there is nothing to read; otherwise what is wrong with it.
pub(in crate::commands) fn read(path: &Path) -> Result<Result<(ReceiptFile, Statement), Wrong>, Failure> {
    let mut bytes = Vec::new();
    open(path)?
        .take(RECEIPT_FILE_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    let parsed = ReceiptFile::parse(&bytes)
        .map_err(|error| Wrong::new(format!("it is no whole receipt: {}", chain(&error))));
    Ok(parsed.and_then(|file| match Statement::parse(&file.statement) {
        Ok(statement) => Ok((file, statement)),
        Err(error) => Err(Wrong::new(format!("it is no whole receipt: {}", chain(&error)))),
    }))
}
