//! The path of an authorized_keys file, which may depend on the account.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use remora_identity::Account;

/// A path with `%h` (home directory), `%u` (user name) and `%%` (a percent) in it, as AuthorizedKeysFile of sshd_config(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Home,
    User,
}

/// Why a path of authorized_keys makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPathError {
    /// A token that isn't one.
    #[error("authorized_keys '{path}': %{token} is no token; %h, %u and %% are")]
    Token {
        /// The path.
        path: String,
        /// What follows the percent.
        token: char,
    },
    /// A percent at the end.
    #[error("authorized_keys '{path}': a % at the end is no token; %% is a percent")]
    Unfinished {
        /// The path.
        path: String,
    },
    /// Nothing.
    #[error("authorized_keys: an empty path")]
    Empty,
}

impl FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, KeyPathError> {
        let path = || text.to_owned();
        if text.is_empty() {
            return Err(KeyPathError::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let token = match chars.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('h') => Part::Home,
                Some('u') => Part::User,
                Some(token) => return Err(KeyPathError::Token { path: path(), token }),
                None => return Err(KeyPathError::Unfinished { path: path() }),
            };
            parts.extend([Part::Text(std::mem::take(&mut plain)), token]);
        }
        parts.push(Part::Text(plain));
        Ok(KeyPath(parts))
    }
}

impl KeyPath {
    /// The path for an account; relative ones start at its home directory.
    pub fn expand(&self, account: &Account) -> PathBuf {
        let mut path = OsString::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => path.push(text),
                Part::Home => path.push(&account.home),
                Part::User => path.push(&account.name),
            }
        }
        account.home.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_key_path_expand() {
        let account =
            Account { name: "ada".into(), uid: 1, gid: 1, home: "/home/ada".into(), shell: "/bin/sh".into() };
        for (template, path) in [
            ("%h/.ssh/authorized_keys", "/home/ada/.ssh/authorized_keys"),
            (".ssh/authorized_keys", "/home/ada/.ssh/authorized_keys"),
            ("/etc/keys/%u", "/etc/keys/ada"),
            ("/etc/100%%/%%u%%", "/etc/100%/%u%"),
        ] {
            assert_eq!(template.parse::<KeyPath>().unwrap().expand(&account), PathBuf::from(path));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_by_name() {
        for (template, within) in [("/etc/%x/%u", "%x is no token"), ("/etc/%", "at the end"), ("", "empty")]
        {
            let error = template.parse::<KeyPath>().unwrap_err().to_string();
            assert!(error.contains(within), "{error}");
        }
    }
}
