//! How what processes of this machine tell each other, and what is written into a job's folder, is laid out: fields, each a tag, a
//! length and bytes. Unknown tags are passed over, so that an older or a newer program reads what it knows.
//!
//! Integers are little-endian and as long as they are. A field that comes several times is a list.

/// Bytes before a field's own: tag and length.
const HEAD: usize = 5;

/// Puts fields behind one another.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn new() -> Self {
        Fields(Vec::new())
    }

    /// A field of bytes.
    pub(crate) fn bytes(mut self, tag: u8, bytes: &[u8]) -> Self {
        // A length that doesn't fit is one that no limit would let through.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.reserve(HEAD + bytes.len());
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// A number; 0 is left out, as is what nobody wrote.
    pub(crate) fn number(self, tag: u8, number: u64) -> Self {
        if number == 0 { self } else { self.bytes(tag, &number.to_le_bytes()) }
    }

    /// A number that may be negative.
    pub(crate) fn signed(self, tag: u8, number: i64) -> Self {
        self.number(tag, number.cast_unsigned())
    }

    pub(crate) fn flag(self, tag: u8, flag: bool) -> Self {
        self.number(tag, flag.into())
    }

    /// Nothing is left out where it is none, and something where it is some, 0 included.
    pub(crate) fn optional(self, tag: u8, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.bytes(tag, &number.to_le_bytes()),
            None => self,
        }
    }

    pub(crate) fn list<'a>(self, tag: u8, list: impl IntoIterator<Item = &'a [u8]>) -> Self {
        list.into_iter().fold(self, |fields, bytes| fields.bytes(tag, bytes))
    }

    /// Fields in a field.
    pub(crate) fn nested(self, tag: u8, fields: Fields) -> Self {
        self.bytes(tag, &fields.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Fields as they were put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a>(&'a [u8]);

impl<'a> Found<'a> {
    /// Takes them, if their lengths add up.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split(rest)?.2;
        }
        Some(Found(bytes))
    }

    /// All fields of a tag.
    pub(crate) fn all(self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while let Some((found, bytes, behind)) = split(rest) {
                rest = behind;
                if found == tag {
                    return Some(bytes);
                }
            }
            None
        })
    }

    /// The first field of a tag; empty where there is none.
    pub(crate) fn bytes(self, tag: u8) -> &'a [u8] {
        self.all(tag).next().unwrap_or_default()
    }

    pub(crate) fn optional(self, tag: u8) -> Option<u64> {
        self.all(tag).next().and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    /// A number; 0 where there is none, or it is none.
    pub(crate) fn number(self, tag: u8) -> u64 {
        self.optional(tag).unwrap_or(0)
    }

    pub(crate) fn signed(self, tag: u8) -> i64 {
        self.number(tag).cast_signed()
    }

    /// A small number, such as a process id; 0 where it doesn't fit.
    pub(crate) fn small(self, tag: u8) -> i32 {
        i32::try_from(self.signed(tag)).unwrap_or(0)
    }

    pub(crate) fn flag(self, tag: u8) -> bool {
        self.number(tag) != 0
    }

    /// Fields in a field.
    pub(crate) fn nested(self, tag: u8) -> Option<Found<'a>> {
        self.all(tag).next().and_then(Found::parse)
    }

    /// An array of bytes; zeros where there is none.
    pub(crate) fn array<const N: usize>(self, tag: u8) -> [u8; N] {
        self.bytes(tag).try_into().unwrap_or([0; N])
    }
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (field, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((*tag, field, rest))
}

#[cfg(test)]
mod tests {
    use super::{Fields, Found};

    #[test]
    fn what_is_put_is_found_and_unknown_fields_are_passed_over() {
        let bytes = Fields::new()
            .bytes(9, b"from a newer program")
            .bytes(1, b"\0\n")
            .number(2, u64::MAX)
            .signed(3, -7)
            .optional(4, Some(0))
            .list(5, [b"a".as_slice(), b"", b"c"])
            .nested(6, Fields::new().flag(1, true))
            .into_bytes();
        let found = Found::parse(&bytes).unwrap();
        assert_eq!(found.bytes(1), b"\0\n");
        assert_eq!((found.number(2), found.small(3), found.optional(4)), (u64::MAX, -7, Some(0)));
        assert_eq!(found.all(5).collect::<Vec<_>>(), [b"a".as_slice(), b"", b"c"]);
        assert!(found.nested(6).unwrap().flag(1));
        assert_eq!((found.number(7), found.optional(7), found.bytes(7)), (0, None, b"".as_slice()));
    }

    #[test]
    fn what_is_cut_is_nothing() {
        let bytes = Fields::new().bytes(1, b"abc").number(2, 5).into_bytes();
        for length in (0..bytes.len()).filter(|length| ![0, 8].contains(length)) {
            assert!(Found::parse(&bytes[..length]).is_none(), "{length}");
        }
        assert!(Found::parse(&[1, 255, 255, 255, 255, 0]).is_none());
    }
}
