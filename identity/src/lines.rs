//! What `authorized_keys` and `known_hosts` have in common: lines, fields, and a bounded list of what is wrong.

use std::fmt;

use crate::limits::{LINE_MAX, LINE_PROBLEMS_MAX_COUNT};
use crate::public_key::PublicKeyError;

/// A file beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file has {bytes} bytes; the limit is {limit}")]
pub struct FileTooLarge {
    /// Its length.
    pub bytes: usize,
    /// The limit.
    pub limit: usize,
}

/// A line that was skipped, and why: for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineProblem {
    /// Line number, from 1.
    pub line: usize,
    /// Why it was skipped.
    pub reason: LineProblemReason,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Why a line was skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblemReason {
    /// Longer than [`LINE_MAX`].
    #[error("the line has {bytes} bytes; the limit is {LINE_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Something stands in front of the key, `cert-authority` among them. The key is not authorized: who wrote
    /// `command="…"` or `from="…"` meant less than everything.
    #[error("options are not supported yet, so this key is not accepted")]
    Options,
    /// A quoted option that never ends.
    #[error("a quotation mark is not closed")]
    UnclosedQuote,
    /// No key where one is due, or one that can't be read.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// A marker other than `@revoked` and `@cert-authority`.
    #[error("the marker is unknown")]
    Marker,
    /// `@cert-authority`: host certificates aren't judged yet.
    #[error("host certificates are not supported yet")]
    CertAuthority,
    /// A hashed name that isn't `|1|salt|hash`.
    #[error("the hashed host name is malformed")]
    HashedName,
}

/// A bounded list of line problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    pub(crate) kept: Vec<LineProblem>,
    pub(crate) left_out: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, line: usize, reason: LineProblemReason) {
        if self.kept.len() < LINE_PROBLEMS_MAX_COUNT {
            self.kept.push(LineProblem { line, reason });
        } else {
            self.left_out += 1;
        }
    }
}

/// The lines that say something, with their numbers: no blank ones, no comments, no white space in front, no line ends.
pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = (usize, Result<&[u8], LineProblemReason>)> {
    (1..).zip(file.split(|byte| *byte == b'\n')).filter_map(|(number, line)| {
        let line = skip_blanks(line.strip_suffix(b"\r").unwrap_or(line));
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let line = match line.len() {
            bytes if bytes > LINE_MAX => Err(LineProblemReason::TooLong { bytes }),
            _ => Ok(line),
        };
        Some((number, line))
    })
}

/// Without the blanks in front. Only space and tab are blanks in these files (sshkey.c, sshkey_read).
pub(crate) fn skip_blanks(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = line {
        line = rest;
    }
    line
}

/// The first field, and what follows it and the blanks behind it.
pub(crate) fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (field, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    (field, skip_blanks(rest))
}
