//! A command as the one line that a plain wire can carry.

use remora_wire::limits;

/// Why a command can't be asked for on a plain wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlainRequestError {
    /// Nothing, or white space.
    #[error("the command is empty")]
    Empty,
    /// No command line can hold one.
    #[error("a command can't hold a NUL byte")]
    Nul,
    /// Longer than what one read of the peer is sure to return.
    #[error("the command has {length} bytes, and a plain wire carries at most {limit}")]
    TooLong {
        /// Its length, bytes.
        length: usize,
        /// The limit, bytes.
        limit: usize,
    },
}

/// The line that `/bin/sh` at the other end is to run. One word is that line, unless `argv`; several are an argument vector,
/// quoted so that the shell passes them on byte for byte: only a shell is there to take it apart.
///
/// # Errors
/// [`PlainRequestError`].
pub fn plain_request(words: &[Vec<u8>], argv: bool) -> Result<Vec<u8>, PlainRequestError> {
    let line = match words {
        [line] if !argv => line.clone(),
        [program, ..] if program.is_empty() => return Err(PlainRequestError::Empty),
        words => {
            // A word alone could be a reserved word, an alias, or an assignment: quoted it is none of them.
            words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(&b' ')
        }
    };
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err(PlainRequestError::Empty);
    }
    if line.contains(&0) {
        return Err(PlainRequestError::Nul);
    }
    if line.len() > limits::PLAIN_REQUEST {
        return Err(PlainRequestError::TooLong { length: line.len(), limit: limits::PLAIN_REQUEST });
    }
    Ok(line)
}

/// A word in single quotes (POSIX.1-2024, Shell Command Language, 2.2.2), where anything in it needs them.
fn quoted(word: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-,:@%+".contains(byte);
    if word.iter().all(plain) && word.iter().any(|byte| b"/._-".contains(byte)) {
        return word.to_vec();
    }
    let mut quoted = Vec::with_capacity(word.len() + 2);
    quoted.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn one_word_is_a_line() {
        assert_eq!(plain_request(&words(&["ls | wc -l"]), false), Ok(b"ls | wc -l".to_vec()));
        assert_eq!(plain_request(&words(&["a b"]), true), Ok(b"'a b'".to_vec()));
    }

    #[test]
    fn several_words_pass_a_shell_unchanged() {
        let list = words(&[
            "printf", "%s|", "a b", "$x", "it's", "", "*", "-n", "\\", "a\nb", "if", "x=1", "~", "ü\u{1b}",
        ]);
        let line = plain_request(&list, false).unwrap();
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(std::ffi::OsString::from(String::from_utf8(line).unwrap()))
            .output()
            .unwrap();
        let expected: String =
            list.iter().skip(2).map(|word| String::from_utf8_lossy(word).into_owned() + "|").collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn what_no_line_can_be_is_refused() {
        assert_eq!(plain_request(&words(&[" \n"]), false), Err(PlainRequestError::Empty));
        assert_eq!(plain_request(&words(&["", "x"]), false), Err(PlainRequestError::Empty));
        assert_eq!(plain_request(&words(&["a\0"]), false), Err(PlainRequestError::Nul));
        let long = "x".repeat(limits::PLAIN_REQUEST + 1);
        assert!(matches!(plain_request(&words(&[&long]), false), Err(PlainRequestError::TooLong { .. })));
    }
}
