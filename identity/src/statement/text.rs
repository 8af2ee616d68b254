//! Texts in a statement: quoted and escaped to printable ASCII, or, where they are long, their length and digest.

use std::fmt::{self, Write as _};

use super::Hex;

/// Bytes from elsewhere: whole, or length and BLAKE3 digest of long ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Whole(Vec<u8>),
    Digest { length: u64, blake3: [u8; 32] },
}

impl Text {
    /// These bytes, whole where they take at most `limit` bytes between their quotes.
    pub(super) fn within(bytes: &[u8], limit: usize) -> Self {
        if quoted_length(bytes) <= limit {
            return Text(Form::Whole(bytes.to_vec()));
        }
        let blake3 = *blake3::hash(bytes).as_bytes();
        Text(Form::Digest { length: bytes.len() as u64, blake3 })
    }

    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Text(Form::Whole(bytes))
    }

    pub(super) fn digest(length: u64, blake3: [u8; 32]) -> Self {
        Text(Form::Digest { length, blake3 })
    }

    /// The bytes; none where only length and digest are told.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Whole(bytes) => Some(bytes),
            Form::Digest { .. } => None,
        }
    }
}

/// As it stands in a statement.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Whole(bytes) => quote(f, bytes),
            Form::Digest { length, blake3 } => write!(f, "length {length} blake3 {}", Hex(blake3)),
        }
    }
}

/// How long [`quote`] makes it, the quotes included.
pub(super) fn quoted_length(bytes: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\t' => 2,
        b' '..=b'~' => 1,
        _ => 4,
    };
    2 + bytes.iter().map(length).sum::<usize>()
}

/// Writes bytes between quotes.
pub(super) fn quote(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_char('"')?;
    for byte in bytes {
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            b'\n' => f.write_str("\\n")?,
            b'\t' => f.write_str("\\t")?,
            b' '..=b'~' => f.write_char(char::from(*byte))?,
            other => write!(f, "\\x{other:02x}")?,
        }
    }
    f.write_char('"')
}

/// The bytes of a quoted text at the beginning of `rest`, and what is behind it. Lenient where two spellings mean the same: that a
/// statement has one text only is checked by its caller.
pub(super) fn unquote(rest: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut chars = rest.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some((bytes, chars.as_str())),
            '\\' => bytes.push(match chars.next()? {
                '"' => b'"',
                '\\' => b'\\',
                'n' => b'\n',
                't' => b'\t',
                'x' => {
                    let digits = chars.as_str().get(..2)?;
                    chars = chars.as_str().get(2..)?.chars();
                    u8::from_str_radix(digits, 16).ok()?
                }
                _ => return None,
            }),
            other => bytes.push(u8::try_from(other).ok()?),
        }
    }
}
