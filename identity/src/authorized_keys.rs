//! `authorized_keys`: who may log in (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"). Takes the file's bytes.
//!
//! In this first step a line with options authorizes nobody: options restrict, and an unread restriction must not become a
//! permission. What was skipped is listed for the log.

use crate::limits::AUTHORIZED_KEYS_MAX;
use crate::lines::{self, FileTooLarge, LineProblem, LineProblemReason, Problems};
use crate::public_key::{KeyAlgorithm, PublicKey, PublicKeyError};

/// The keys of one file. The default is empty: nobody.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedKeys {
    keys: Vec<AuthorizedKey>,
    problems: Problems,
}

/// A key that may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// Line number, from 1.
    pub line: usize,
    /// The key.
    pub key: PublicKey,
}

impl AuthorizedKeys {
    /// Parses the bytes of a file. A line that can't be used never hides the next one.
    ///
    /// # Errors
    /// [`FileTooLarge`] beyond [`AUTHORIZED_KEYS_MAX`]; the file isn't looked at then.
    pub fn parse(file: &[u8]) -> Result<Self, FileTooLarge> {
        if file.len() > AUTHORIZED_KEYS_MAX {
            return Err(FileTooLarge { bytes: file.len(), limit: AUTHORIZED_KEYS_MAX });
        }
        let mut parsed = AuthorizedKeys::default();
        for (number, line) in lines::lines(file) {
            match line.and_then(parse_line) {
                Ok(key) => parsed.keys.push(AuthorizedKey { line: number, key }),
                Err(reason) => parsed.problems.add(number, reason),
            }
        }
        Ok(parsed)
    }

    /// The keys, in the order of the file.
    pub fn keys(&self) -> &[AuthorizedKey] {
        &self.keys
    }

    /// The lines that were skipped and why, at most [`LINE_PROBLEMS_MAX_COUNT`](crate::limits::LINE_PROBLEMS_MAX_COUNT): for the log.
    pub fn problems(&self) -> &[LineProblem] {
        &self.problems.kept
    }

    /// How many further lines were skipped.
    pub fn problems_left_out(&self) -> usize {
        self.problems.left_out
    }

    /// The line that authorizes `key`.
    pub fn find(&self, key: &PublicKey) -> Option<&AuthorizedKey> {
        self.keys.iter().find(|authorized| authorized.key == *key)
    }
}

/// As sshd's `auth_check_authkey_line`: a key, or else options and a key.
fn parse_line(line: &[u8]) -> Result<PublicKey, LineProblemReason> {
    let (name, rest) = lines::field(line);
    if KeyAlgorithm::is_known_name(name) {
        return Ok(read_key(line)?);
    }
    let behind_options = lines::skip_blanks(skip_options(line)?);
    match read_key(behind_options) {
        Ok(_) => Err(LineProblemReason::Options),
        // Neither a key nor options and a key: is it the type that is unknown, or is there no key at all?
        Err(error) if looks_like_key(behind_options) => Err(error.into()),
        Err(_) if lines::field(rest).0.starts_with(b"AAAA") => {
            Err(read_key(line).err().map_or(LineProblemReason::Options, LineProblemReason::Key))
        }
        Err(_) => Err(PublicKeyError::NoKey.into()),
    }
}

fn read_key(line: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let (name, rest) = lines::field(line);
    let (base64, _comment) = lines::field(rest);
    if name.is_empty() || base64.is_empty() {
        return Err(PublicKeyError::NoKey);
    }
    PublicKey::from_fields(name, base64)
}

/// Every key blob starts with a length below 2^24, so its base64 starts with `AAAA`.
fn looks_like_key(line: &[u8]) -> bool {
    let (name, rest) = lines::field(line);
    KeyAlgorithm::is_known_name(name) || rest.starts_with(b"AAAA")
}

/// What follows the options: up to the first blank outside quotes; `\"` ends no quote
/// (sshkey.c, sshkey_advance_past_options).
fn skip_options(line: &[u8]) -> Result<&[u8], LineProblemReason> {
    let mut quoted = false;
    let mut rest = line;
    loop {
        match rest {
            [b'\\', b'"', after @ ..] => rest = after,
            [b' ' | b'\t', ..] if !quoted => return Ok(rest),
            [byte, after @ ..] => {
                quoted ^= *byte == b'"';
                rest = after;
            }
            [] if quoted => return Err(LineProblemReason::UnclosedQuote),
            [] => return Ok(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LINE_MAX, LINE_PROBLEMS_MAX_COUNT};
    use crate::public_key::tests::ED25519;

    fn parse(text: &str) -> AuthorizedKeys {
        AuthorizedKeys::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn comments_blanks_and_line_ends_are_read_as_sshd_reads_them() {
        let text = format!("# who\r\n\r\n   \t\n \t{ED25519}\r\n#{ED25519}\n{ED25519}");
        let list = parse(&text);
        assert_eq!(list.keys().iter().map(|key| key.line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(list.problems(), []);
        assert_eq!(list.find(&PublicKey::from_text(ED25519).unwrap()).unwrap().line, 4);
    }

    #[test]
    fn a_line_without_comment_or_with_bytes_that_are_no_text_is_a_key() {
        let bare = PublicKey::from_text(ED25519).unwrap().to_text();
        let mut file = format!("{bare}\r\n{bare} caf").into_bytes();
        file.extend_from_slice(b"\xe9\xff\0\x1b\n");
        let list = AuthorizedKeys::parse(&file).unwrap();
        assert_eq!(list.keys().len(), 2);
    }

    #[test]
    fn a_line_with_options_authorizes_nobody() {
        for options in [
            "no-pty",
            "command=\"echo hi there\"",
            "command=\"echo \\\"ssh-ed25519 AAAA\\\" x\",no-pty",
            "from=\"10.0.0.0/8, ! x\" ",
            "cert-authority",
            "cert-authority,principals=\"deploy,root\"",
            "restrict\t",
            "environment=\"A= ssh-rsa AAAA \"",
        ] {
            let list = parse(&format!("{options} {ED25519}\n"));
            assert_eq!(list.keys(), [], "{options}");
            assert_eq!(list.problems()[0].reason, LineProblemReason::Options, "{options}");
        }
    }

    #[test]
    fn a_key_inside_a_quoted_option_is_no_key() {
        let list = parse(&format!("command=\"{ED25519}\n"));
        assert_eq!(list.keys(), []);
        assert_eq!(list.problems()[0].reason, LineProblemReason::UnclosedQuote);
        let list = parse(&format!("command=\" {ED25519} \"\n"));
        assert_eq!((list.keys(), list.problems().len()), (&[][..], 1));
    }

    #[test]
    fn bad_lines_are_reported_and_hide_nothing() {
        let text = format!(
            "ssh-ed25519\nssh-ed25519 AAAA!\nssh-dss AAAAB3NzaC1kc3M= old\nnonsense\n{}\n{ED25519}\n",
            ED25519.replacen("ssh-ed25519", "ssh-rsa", 1),
        );
        let list = parse(&text);
        assert_eq!(list.keys().len(), 1);
        let reasons: Vec<_> = list.problems().iter().map(|problem| problem.reason.clone()).collect();
        assert_eq!(
            reasons,
            [
                PublicKeyError::NoKey.into(),
                PublicKeyError::Base64.into(),
                PublicKeyError::UnsupportedType { name: "ssh-dss".to_owned() }.into(),
                PublicKeyError::NoKey.into(),
                PublicKeyError::TypeMismatch.into(),
            ]
        );
        assert_eq!(list.problems()[2].to_string(), "line 3: keys of type ssh-dss are not supported");
    }

    #[test]
    fn lengths_are_bounded() {
        let long = format!("{ED25519}{}\n{ED25519}\n", "x".repeat(LINE_MAX));
        let list = parse(&long);
        assert_eq!(list.keys().len(), 1);
        assert!(matches!(
            list.problems()[0],
            LineProblem { line: 1, reason: LineProblemReason::TooLong { .. } }
        ));

        let many = parse(&"x\n".repeat(LINE_PROBLEMS_MAX_COUNT + 5));
        assert_eq!((many.problems().len(), many.problems_left_out()), (LINE_PROBLEMS_MAX_COUNT, 5));

        assert!(AuthorizedKeys::parse(&vec![b'\n'; AUTHORIZED_KEYS_MAX + 1]).is_err());
    }
}
