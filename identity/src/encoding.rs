//! The data types of RFC 4251, section 5: `uint32`, `string` and `mpint`. Strict: one value has one encoding.

use zeroize::Zeroizing;

/// Why bytes are no SSH encoding of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A length says more than there is.
    #[error("the data ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("there is data after the end")]
    Trailing,
    /// More bytes than this crate reads.
    #[error("{bytes} bytes are more than the {limit} allowed")]
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A negative number, or one with needless zero bytes in front.
    #[error("a number is negative or not in its shortest form")]
    Number,
    /// A value that can't stand where it stands.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
}

/// Reads SSH encoding from a slice. Never allocates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// A reader for at most `limit` bytes.
    pub(crate) fn bounded(bytes: &'a [u8], limit: usize) -> Result<Self, Malformed> {
        if bytes.len() > limit {
            return Err(Malformed::TooLong { bytes: bytes.len(), limit });
        }
        Ok(Reader::new(bytes))
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn uint32(&mut self) -> Result<u32, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.uint32()?;
        self.bytes(usize::try_from(length).map_err(|_| Malformed::Truncated)?)
    }

    /// A non-negative `mpint`, as its big-endian bytes without leading zeros; zero is the empty slice.
    pub(crate) fn mpint(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.string()?;
        match bytes {
            [] => Ok(bytes),
            [0] => Err(Malformed::Number),
            [0, next, ..] if next & 0x80 == 0 => Err(Malformed::Number),
            [0, rest @ ..] => Ok(rest),
            [first, ..] if first & 0x80 != 0 => Err(Malformed::Number),
            _ => Ok(bytes),
        }
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// Appends a `string`. What this crate writes is far below 4 GiB; a longer slice would be cut, and its reader would refuse it.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.get(..length as usize).unwrap_or(bytes));
}

/// Appends a non-negative `mpint` from big-endian bytes, leading zeros or not.
pub(crate) fn put_mpint(out: &mut Vec<u8>, magnitude: &[u8]) {
    let digits = without_leading_zeros(magnitude);
    let mut padded = Zeroizing::new(Vec::with_capacity(digits.len() + 1));
    if digits.first().is_some_and(|first| first & 0x80 != 0) {
        padded.push(0);
    }
    padded.extend_from_slice(digits);
    put_string(out, &padded);
}

/// A big-endian number without the zero bytes in front of it.
pub(crate) fn without_leading_zeros(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// A big-endian number in exactly `width` bytes, or `None` when it doesn't fit.
pub(crate) fn left_padded(bytes: &[u8], width: usize) -> Option<Zeroizing<Vec<u8>>> {
    let digits = without_leading_zeros(bytes);
    let zeros = width.checked_sub(digits.len())?;
    let mut out = Zeroizing::new(Vec::with_capacity(width));
    out.resize(zeros, 0);
    out.extend_from_slice(digits);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_encoding() {
        for (bytes, expected) in [
            (&[0, 0, 0, 0][..], Ok(&[][..])),
            (&[0, 0, 0, 1, 0x7f], Ok(&[0x7f])),
            (&[0, 0, 0, 2, 0, 0x80], Ok(&[0x80])),
            (&[0, 0, 0, 1, 0], Err(Malformed::Number)),
            (&[0, 0, 0, 2, 0, 0x7f], Err(Malformed::Number)),
            (&[0, 0, 0, 1, 0x80], Err(Malformed::Number)),
            (&[0, 0, 0, 2, 1], Err(Malformed::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).mpint(), expected, "{bytes:?}");
        }
        let mut out = Vec::new();
        put_mpint(&mut out, &[0, 0, 0x80, 1]);
        assert_eq!(out, [0, 0, 0, 3, 0, 0x80, 1]);
    }

    #[test]
    fn a_length_beyond_the_end_is_truncated_and_allocates_nothing() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0, 0, 0]).uint32(), Err(Malformed::Truncated));
    }

    #[test]
    fn padding_fits_or_says_no() {
        assert_eq!(left_padded(&[0, 0, 5], 2).unwrap().as_slice(), [0, 5]);
        assert!(left_padded(&[1, 2, 3], 2).is_none());
    }
}
