//! `known_hosts`: which host has which key (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), and the verdict on a key presented.
//!
//! Takes the bytes of one or more files. Appending to one is done elsewhere, with the line that [`new_line`] gives.

mod names;

use std::sync::Arc;

pub use names::{BadHostName, exact_name, new_line};

use crate::limits::KNOWN_HOSTS_MAX;
use crate::lines::{self, FileTooLarge, LineProblem, LineProblemReason, Problems};
use crate::public_key::{KeyAlgorithm, PublicKey, PublicKeyError};
use names::HostPatterns;

/// The entries of one or more files. The default knows no host.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    problems: Vec<FileProblems>,
}

/// What was skipped in one file.
#[derive(Clone, Debug)]
pub struct FileProblems {
    /// The file, as it was named to [`KnownHosts::read`].
    pub source: Arc<str>,
    /// The lines that were skipped and why, at most [`LINE_PROBLEMS_MAX_COUNT`](crate::limits::LINE_PROBLEMS_MAX_COUNT).
    pub lines: Vec<LineProblem>,
    /// How many further ones were skipped.
    pub left_out: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    names: HostPatterns,
    revoked: bool,
    recorded: Recorded,
}

/// A key that is recorded for a host, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The file, as it was named to [`KnownHosts::read`].
    pub source: Arc<str>,
    /// Line number, from 1.
    pub line: usize,
    /// The key's type, such as `ssh-ed25519`; escaped.
    pub key_type: String,
    /// The key, or `None` for a type unknown here. It still says that this host has another key than one presented.
    pub key: Option<PublicKey>,
}

impl KnownHosts {
    /// Parses one file; see [`KnownHosts::read`].
    ///
    /// # Errors
    /// [`FileTooLarge`] beyond [`KNOWN_HOSTS_MAX`].
    pub fn parse(source: &str, file: &[u8]) -> Result<Self, FileTooLarge> {
        let mut known = KnownHosts::default();
        known.read(source, file)?;
        Ok(known)
    }

    /// Adds the entries of a further file. `source` is its name in messages. Malformed lines and `@cert-authority` lines are
    /// skipped and reported.
    ///
    /// # Errors
    /// [`FileTooLarge`] beyond [`KNOWN_HOSTS_MAX`]; the file isn't looked at then.
    pub fn read(&mut self, source: &str, file: &[u8]) -> Result<(), FileTooLarge> {
        if file.len() > KNOWN_HOSTS_MAX {
            return Err(FileTooLarge { bytes: file.len(), limit: KNOWN_HOSTS_MAX });
        }
        let source: Arc<str> = source.into();
        let mut problems = Problems::default();
        for (number, line) in lines::lines(file) {
            match line.and_then(|line| parse_line(&source, number, line)) {
                Ok(entry) => self.entries.push(entry),
                Err(reason) => problems.add(number, reason),
            }
        }
        if !problems.kept.is_empty() {
            self.problems.push(FileProblems { source, lines: problems.kept, left_out: problems.left_out });
        }
        Ok(())
    }

    /// What was skipped, file by file: for `-v` and the log.
    pub fn problems(&self) -> &[FileProblems] {
        &self.problems
    }

    /// The lines that record `key`: under which names a host is known that has shown it.
    pub fn known_as(&self, key: &PublicKey) -> Vec<KnownAs> {
        let recording = self.entries.iter().filter(|entry| entry.recorded.key.as_ref() == Some(key));
        recording
            .map(|entry| KnownAs {
                names: entry.names.as_written(),
                revoked: entry.revoked,
                recorded: entry.recorded.clone(),
            })
            .collect()
    }

    /// What is recorded for `host` at `port`. The exact name is `[host]:port`, at port 22 the plain `host`, as ssh has it.
    pub fn lookup(&self, host: &str, port: u16) -> KnownKeys {
        let plain = host.to_ascii_lowercase();
        let exact = exact_name(host, port);
        let mut known = KnownKeys::default();
        for entry in &self.entries {
            let at_exact = entry.names.matches(&exact);
            let at_plain = exact != plain && entry.names.matches(&plain);
            let lists = [
                (entry.revoked && (at_exact || at_plain), &mut known.revoked),
                (!entry.revoked && at_exact, &mut known.exact),
                (!entry.revoked && at_plain, &mut known.plain),
            ];
            for (_, list) in lists.into_iter().filter(|(here, _)| *here) {
                list.push(entry.recorded.clone());
            }
        }
        known
    }
}

/// What is recorded for one host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownKeys {
    /// For exactly this host and port.
    pub exact: Vec<Recorded>,
    /// For the plain host name; empty at port 22, where that is the exact name.
    pub plain: Vec<Recorded>,
    /// Marked `@revoked` under either name.
    pub revoked: Vec<Recorded>,
}

/// A line that records a key, whichever host it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAs {
    /// The names on that line, as they stand there, escaped; none where they are hashed.
    pub names: Option<String>,
    /// Marked `@revoked`.
    pub revoked: bool,
    /// Where.
    pub recorded: Recorded,
}

/// The verdict on a key that a host presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Recorded for this host and port, or, where nothing is recorded for exactly these, for the plain name.
    Trusted {
        /// Where.
        by: Recorded,
    },
    /// Other keys are recorded for exactly this host and port. Refused, always.
    Mismatch {
        /// Those.
        recorded: Vec<Recorded>,
    },
    /// Nothing is recorded for exactly this host and port, nor this key for the plain name.
    Unknown {
        /// Whether other keys are recorded for the plain name. ssh calls that unknown, and so does this; but `--accept-new` is
        /// for hosts never seen, so it doesn't accept it.
        plain_name_differs: bool,
    },
    /// Marked `@revoked`. Refused, always, wherever else it is recorded.
    Revoked {
        /// Where.
        by: Recorded,
    },
}

impl Verdict {
    /// Whether `--accept-new` accepts the key.
    pub fn may_accept_new(&self) -> bool {
        *self == Verdict::Unknown { plain_name_differs: false }
    }
}

/// Which kinds of host key to ask a host for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostKeyKinds {
    /// The kinds on record, best first, each once; empty for a host without a record.
    pub preferred: Vec<KeyAlgorithm>,
    /// Whether no other kind can be trusted: something is recorded for exactly this host and port. Otherwise the preferred ones
    /// come first, and all others after them.
    pub only: bool,
}

impl KnownKeys {
    /// Whether nothing at all is recorded.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.plain.is_empty() && self.revoked.is_empty()
    }

    /// Judges the key that a host presented.
    ///
    /// Where the exact name has entries, only they count. A key that is recorded for the plain name alone is then a mismatch:
    /// whoever recorded a key for this very port knew better than the line for the whole host, which may name another server
    /// altogether. ssh decides the same: it looks at the plain name only when the exact one has no entry
    /// (sshconnect.c, check_host_key).
    pub fn judge(&self, key: &PublicKey) -> Verdict {
        let find =
            |list: &[Recorded]| list.iter().find(|recorded| recorded.key.as_ref() == Some(key)).cloned();
        if let Some(by) = find(&self.revoked) {
            return Verdict::Revoked { by };
        }
        if let Some(by) = find(&self.exact) {
            return Verdict::Trusted { by };
        }
        if !self.exact.is_empty() {
            return Verdict::Mismatch { recorded: self.exact.clone() };
        }
        if let Some(by) = find(&self.plain) {
            return Verdict::Trusted { by };
        }
        Verdict::Unknown { plain_name_differs: !self.plain.is_empty() }
    }

    /// The kinds of host key on record for this host: those of the exact name, or else those of the plain one. Revoked keys
    /// don't count.
    pub fn host_key_kinds(&self) -> HostKeyKinds {
        let list = if self.exact.is_empty() { &self.plain } else { &self.exact };
        let mut preferred: Vec<KeyAlgorithm> = Vec::new();
        for key in list.iter().filter_map(|recorded| recorded.key.as_ref()) {
            if self.revoked.iter().any(|revoked| revoked.key.as_ref() == Some(key)) {
                continue;
            }
            if preferred.iter().all(|algorithm| algorithm.name() != key.name()) {
                preferred.push(key.algorithm());
            }
        }
        preferred.sort_by_key(|algorithm| match algorithm {
            KeyAlgorithm::Ed25519 => 0,
            KeyAlgorithm::EcdsaP256 => 1,
            KeyAlgorithm::EcdsaP384 => 2,
            KeyAlgorithm::EcdsaP521 => 3,
            KeyAlgorithm::Rsa { .. } => 4,
        });
        HostKeyKinds { only: !self.exact.is_empty(), preferred }
    }
}

fn parse_line(source: &Arc<str>, number: usize, line: &[u8]) -> Result<Entry, LineProblemReason> {
    let (first, rest) = lines::field(line);
    let (revoked, names, rest) = match first {
        b"@revoked" => {
            let (names, rest) = lines::field(rest);
            (true, names, rest)
        }
        b"@cert-authority" => return Err(LineProblemReason::CertAuthority),
        [b'@', ..] => return Err(LineProblemReason::Marker),
        names => (false, names, rest),
    };
    let names = HostPatterns::parse(names)?;
    let (key_type, rest) = lines::field(rest);
    let (base64, _comment) = lines::field(rest);
    if base64.is_empty() {
        return Err(PublicKeyError::NoKey.into());
    }
    let key = match PublicKey::from_fields(key_type, base64) {
        Ok(key) => Some(key),
        // A type that isn't known here, or a length that isn't used: still a record that this host has another key.
        Err(PublicKeyError::UnsupportedType { .. } | PublicKeyError::RsaSize { .. })
            if base64.starts_with(b"AAAA") =>
        {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let key_type = key_type.get(..64).unwrap_or(key_type).escape_ascii().to_string();
    let recorded = Recorded { source: Arc::clone(source), line: number, key_type, key };
    Ok(Entry { names, revoked, recorded })
}

#[cfg(test)]
mod tests;
