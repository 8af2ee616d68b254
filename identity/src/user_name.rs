//! Names of user accounts as a peer or a user types them: data, never an option, a path or an escape sequence (PITFALLS 44).

use std::fmt;

use crate::limits::USER_NAME_MAX;

/// A user name that can be put into a message, a path component or an argument without becoming something else.
///
/// Whether such an account exists is another question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserName(String);

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUserName {
    /// No text at all.
    #[error("the user name is empty")]
    Empty,
    /// Longer than [`USER_NAME_MAX`].
    #[error("the user name has {bytes} bytes; the limit is {USER_NAME_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It would be read as an option.
    #[error("the user name starts with a hyphen")]
    LeadingHyphen,
    /// `.` and `..` are directories where a name becomes a path component.
    #[error("the user name is a relative directory")]
    DotName,
    /// A control character, NUL among them, or one of `/` and `:`, which no account's name has (passwd(5)).
    #[error("the user name has a character that no account's name has")]
    BadCharacter,
}

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadUserName`] says what is wrong with it.
    pub fn parse(name: &str) -> Result<Self, BadUserName> {
        if name.is_empty() {
            return Err(BadUserName::Empty);
        }
        if name.len() > USER_NAME_MAX {
            return Err(BadUserName::TooLong { bytes: name.len() });
        }
        if name.starts_with('-') {
            return Err(BadUserName::LeadingHyphen);
        }
        if name == "." || name == ".." {
            return Err(BadUserName::DotName);
        }
        if name.chars().any(|c| c.is_control() || c == '/' || c == ':') {
            return Err(BadUserName::BadCharacter);
        }
        Ok(UserName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["root", "www-data", "first.last", "user@example.org", "_apt", "DOMAIN\\user", "jürgen"]
        {
            assert_eq!(UserName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_would_become_something_else_do_not() {
        // PITFALLS 44
        for (name, why) in [
            ("", BadUserName::Empty),
            ("-oProxyCommand=x", BadUserName::LeadingHyphen),
            ("..", BadUserName::DotName),
            ("a/b", BadUserName::BadCharacter),
            ("a\0", BadUserName::BadCharacter),
            ("a\nb", BadUserName::BadCharacter),
            ("\u{1b}[31m", BadUserName::BadCharacter),
            ("\u{9b}31m", BadUserName::BadCharacter),
            ("root:x", BadUserName::BadCharacter),
        ] {
            assert_eq!(UserName::parse(name), Err(why), "{name:?}");
        }
        let long = "a".repeat(USER_NAME_MAX + 1);
        assert_eq!(UserName::parse(&long), Err(BadUserName::TooLong { bytes: USER_NAME_MAX + 1 }));
    }
}
