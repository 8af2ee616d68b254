//! Digests of a payload, computed as it comes.

use md5::{Digest, Md5};

/// MD5 and BLAKE3 of bytes so far.
#[derive(Clone)]
pub struct Digests {
    md5: Md5,
    blake3: Box<blake3::Hasher>,
}

impl Digests {
    /// Of nothing.
    pub fn new() -> Self {
        Digests { md5: Md5::new(), blake3: Box::new(blake3::Hasher::new()) }
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.blake3.update(bytes);
    }

    /// MD5 (RFC 1321) and BLAKE3 of it all.
    pub fn finish(self) -> ([u8; 16], [u8; 32]) {
        (self.md5.finalize().into(), *self.blake3.finalize().as_bytes())
    }
}

impl Default for Digests {
    fn default() -> Self {
        Digests::new()
    }
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digests").finish_non_exhaustive()
    }
}

/// What a digest in a header came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The header has none, or something else in its place.
    Absent,
    /// The payload has it.
    Matches,
    /// The payload has another.
    Differs,
    /// The payload wasn't read to its end.
    Unchecked,
}

/// What both digests of a reply came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// Of `md5`.
    pub md5: Verdict,
    /// Of `blake3`.
    pub blake3: Verdict,
}

impl Verdicts {
    /// Of a reply without digests.
    pub const ABSENT: Verdicts = Verdicts { md5: Verdict::Absent, blake3: Verdict::Absent };

    /// Whether a digest says that these aren't the bytes that were meant.
    pub fn differ(self) -> bool {
        self.md5 == Verdict::Differs || self.blake3 == Verdict::Differs
    }
}

/// Checks a payload against its header.
#[derive(Debug)]
pub(super) struct Check {
    md5: Option<(Md5, [u8; 16])>,
    blake3: Option<(Box<blake3::Hasher>, [u8; 32])>,
}

impl Check {
    pub(super) fn new(md5: Option<[u8; 16]>, blake3: Option<[u8; 32]>) -> Self {
        Check {
            md5: md5.map(|expected| (Md5::new(), expected)),
            blake3: blake3.map(|expected| (Box::new(blake3::Hasher::new()), expected)),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some((hasher, _)) = &mut self.md5 {
            hasher.update(bytes);
        }
        if let Some((hasher, _)) = &mut self.blake3 {
            hasher.update(bytes);
        }
    }

    /// The verdicts of a payload that is complete.
    pub(super) fn finish(&mut self) -> Verdicts {
        let verdict = |matches| if matches { Verdict::Matches } else { Verdict::Differs };
        let md5 = self.md5.take().map(|(hasher, expected)| <[u8; 16]>::from(hasher.finalize()) == expected);
        let blake3 = self.blake3.take().map(|(hasher, expected)| *hasher.finalize().as_bytes() == expected);
        Verdicts {
            md5: md5.map_or(Verdict::Absent, verdict),
            blake3: blake3.map_or(Verdict::Absent, verdict),
        }
    }

    /// The verdicts of a payload that isn't.
    pub(super) fn unchecked(&self) -> Verdicts {
        let verdict = |there| if there { Verdict::Unchecked } else { Verdict::Absent };
        Verdicts { md5: verdict(self.md5.is_some()), blake3: verdict(self.blake3.is_some()) }
    }
}
