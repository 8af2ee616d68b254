//! Host names in `known_hosts`: patterns, hashed names, and the name a key is recorded under.

use aws_lc_rs::hmac;
use base64ct::{Base64, Encoding as _};

use crate::lines::LineProblemReason;
use crate::public_key::PublicKey;

/// The first field of a line.
#[derive(Clone, Debug)]
pub(super) enum HostPatterns {
    /// Comma-separated patterns, lower case.
    Plain(Vec<u8>),
    /// One hashed name: `|1|salt|HMAC-SHA1(salt, name)`.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl HostPatterns {
    pub(super) fn parse(field: &[u8]) -> Result<Self, LineProblemReason> {
        let Some(hashed) = field.strip_prefix(b"|") else {
            return Ok(HostPatterns::Plain(field.to_ascii_lowercase()));
        };
        let malformed = LineProblemReason::HashedName;
        let mut parts = str::from_utf8(hashed).map_err(|_| malformed.clone())?.split('|');
        let (Some("1"), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        let decode = |text| Base64::decode_vec(text).map_err(|_| LineProblemReason::HashedName);
        let (salt, hash) = (decode(salt)?, decode(hash)?);
        if salt.len() != 20 || hash.len() != 20 {
            return Err(malformed);
        }
        Ok(HostPatterns::Hashed { salt, hash })
    }

    /// The patterns, escaped, in lower case; none of a hashed name.
    pub(super) fn as_written(&self) -> Option<String> {
        match self {
            HostPatterns::Plain(patterns) => Some(patterns.escape_ascii().to_string()),
            HostPatterns::Hashed { .. } => None,
        }
    }

    /// Whether `name`, in lower case, is meant. As ssh has it: `*` and `?` are wildcards, `!` in front of a pattern takes out
    /// what it matches, whatever else matches (match.c, match_pattern_list).
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            HostPatterns::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
            HostPatterns::Plain(patterns) => {
                let mut found = false;
                for pattern in patterns.split(|byte| *byte == b',') {
                    match pattern.strip_prefix(b"!") {
                        Some(negated) if wildcard(negated, name.as_bytes()) => return false,
                        Some(_) => {}
                        None => found |= wildcard(pattern, name.as_bytes()),
                    }
                }
                found
            }
        }
    }
}

/// Whether `text` matches `pattern` with `*` and `?`. Goes back to the last star only, so the time is bounded by the product
/// of both lengths.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (p, t) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                star = Some((rest, t));
                p = rest;
            }
            ([b'?', rest @ ..], [_, after @ ..]) => (p, t) = (rest, after),
            ([wanted, rest @ ..], [byte, after @ ..]) if wanted == byte => (p, t) = (rest, after),
            _ => {
                let Some((behind_star, [_, from @ ..])) = star else { return false };
                star = Some((behind_star, from));
                (p, t) = (behind_star, from);
            }
        }
    }
}

/// The name that a key for exactly this host and port is recorded under: `[host]:port`, at port 22 the plain `host`;
/// in lower case.
pub fn exact_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A host name that can't be recorded: in `known_hosts` it would mean something else (PITFALLS 44).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host name can't be recorded in known_hosts")]
pub struct BadHostName;

/// The line that records `key` for exactly this host and port, with its line feed, as ssh writes it. With a random `salt`
/// the name is hashed, as under `HashKnownHosts yes`.
///
/// # Errors
/// [`BadHostName`] for a name with characters that mean something in `known_hosts`.
pub fn new_line(
    host: &str,
    port: u16,
    key: &PublicKey,
    salt: Option<&[u8; 20]>,
) -> Result<String, BadHostName> {
    let special = |c: char| c.is_whitespace() || c.is_control() || ",*?!|#@[]".contains(c);
    if host.is_empty() || host.contains(special) {
        return Err(BadHostName);
    }
    let name = exact_name(host, port);
    let name = match salt {
        None => name,
        Some(salt) => {
            let hmac_key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            let hash = hmac::sign(&hmac_key, name.as_bytes());
            format!("|1|{}|{}", Base64::encode_string(salt), Base64::encode_string(hash.as_ref()))
        }
    };
    Ok(format!("{name} {}\n", key.to_text()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key::tests::ED25519;

    #[test]
    fn wildcards_match_as_ssh_has_them() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "host", true),
            ("web?", "web1", true),
            ("web?", "web", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("[host]:7366", "[host]:7366", true),
            ("[host]:7366", "h:7366", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(4000) + "b";
        assert!(!wildcard(pattern.as_bytes(), "a".repeat(8000).as_bytes()));
    }

    #[test]
    fn a_negated_pattern_takes_out_what_others_match() {
        let patterns = HostPatterns::parse(b"*.example.org,!bad.example.org").unwrap();
        assert!(patterns.matches("good.example.org"));
        assert!(!patterns.matches("bad.example.org"));
        assert!(!HostPatterns::parse(b"!bad.example.org").unwrap().matches("good.example.org"));
    }

    #[test]
    fn a_host_name_that_would_break_the_line_is_not_recorded() {
        // PITFALLS 44
        let key = PublicKey::from_text(ED25519).unwrap();
        for host in
            ["", "a b", "a\n* ssh-ed25519", "*", "a,b", "!a", "|1|x", "#a", "@revoked", "[a]:1", "a\0"]
        {
            assert_eq!(new_line(host, 7366, &key, None), Err(BadHostName), "{host:?}");
        }
        assert!(new_line("::1", 7366, &key, None).unwrap().starts_with("[::1]:7366 ssh-ed25519 AAAA"));
        assert!(new_line("Web3", 22, &key, None).unwrap().starts_with("web3 ssh-ed25519 AAAA"));
    }
}
