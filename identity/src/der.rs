//! As much DER (X.690) as keys need: definite lengths, shortest form, nothing else.

use zeroize::Zeroizing;

use crate::encoding::{Malformed, without_leading_zeros};

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;

/// One element: tag, length, the parts one after another. Zeroized when dropped, because private keys pass through here.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let digits = length.to_be_bytes();
    let digits = without_leading_zeros(&digits);
    let mut out = Zeroizing::new(Vec::with_capacity(2 + digits.len() + length));
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A non-negative INTEGER from big-endian bytes.
pub(crate) fn integer(magnitude: &[u8]) -> Zeroizing<Vec<u8>> {
    let digits = without_leading_zeros(magnitude);
    match digits.first() {
        Some(first) if first & 0x80 == 0 => element(INTEGER, &[digits]),
        _ => element(INTEGER, &[&[0], digits]),
    }
}

/// Reads DER from a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DerReader<'a> {
    rest: &'a [u8],
}

impl<'a> DerReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        DerReader { rest: bytes }
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn element(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let (header, rest) = self.rest.split_first_chunk::<2>().ok_or(Malformed::Truncated)?;
        let [found, first] = *header;
        if found != tag {
            return Err(Malformed::Unexpected("DER element"));
        }
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 3 {
                return Err(Malformed::Unexpected("DER length"));
            }
            let (digits, rest) = rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(content)
    }

    /// The next element, a non-negative INTEGER, without leading zeros.
    pub(crate) fn integer(&mut self) -> Result<&'a [u8], Malformed> {
        match self.element(INTEGER)? {
            [] => Err(Malformed::Number),
            [first, ..] if first & 0x80 != 0 => Err(Malformed::Number),
            digits => Ok(without_leading_zeros(digits)),
        }
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_go_there_and_back() {
        for length in [0usize, 1, 127, 128, 255, 256, 65535, 65536] {
            let content = vec![7; length];
            let der = element(OCTET_STRING, &[&content]);
            let mut reader = DerReader::new(&der);
            assert_eq!(reader.element(OCTET_STRING).unwrap(), content);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn integers_keep_their_sign() {
        assert_eq!(integer(&[0x80]).as_slice(), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]).as_slice(), [2, 1, 0]);
        assert_eq!(DerReader::new(&[2, 1, 0x80]).integer(), Err(Malformed::Number));
    }
}
