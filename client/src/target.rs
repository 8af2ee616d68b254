//! What a user types to name one host.

use std::path::PathBuf;

/// The native wire's port.
pub const DEFAULT_PORT: u16 = 7366;

/// One of the plain wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plain {
    /// `raw://`.
    Raw,
    /// `length://`.
    Length,
    /// `header://`.
    Header,
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Plain::Raw => "raw",
            Plain::Length => "length",
            Plain::Header => "header",
        })
    }
}

/// A host, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server inside this process.
    Local,
    /// The native wire over TLS and TCP.
    Native {
        /// The account, where one was named.
        user: Option<String>,
        /// Name or address.
        host: String,
        /// The port, where one was named.
        port: Option<u16>,
    },
    /// The native wire over a Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
    /// A plain wire over TCP.
    Plain {
        /// Which one.
        wire: Plain,
        /// Name or address.
        host: String,
        /// The port: the plain wires have no default.
        port: u16,
    },
}

/// Why a target makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is nothing.
    #[error("the target is empty")]
    Empty,
    /// A host or user that could be taken for an option, or with characters that no name has.
    #[error("'{0}' can't be a {1}")]
    Name(String, &'static str),
    /// Not a port number.
    #[error("'{0}' isn't a port: 1 to 65535")]
    Port(String),
    /// A plain wire without a port.
    #[error("{0}://{1} names no port")]
    NoPort(Plain, String),
    /// A scheme nobody knows.
    #[error("'{0}://' is no wire: native, unix, raw, length and header are")]
    Scheme(String),
    /// An IPv6 address without brackets.
    #[error("'{0}': an IPv6 address with or without a port goes in brackets, as [::1]:7366")]
    Brackets(String),
    /// A Unix socket without a path.
    #[error("unix: names no path")]
    NoPath,
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text == "local" {
            return Ok(Target::Local);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(TargetError::NoPath)
            } else {
                Ok(Target::Unix { path: path.into() })
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else { return native(text) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let wire = match scheme {
            "native" => return native(rest),
            "raw" => Plain::Raw,
            "length" => Plain::Length,
            "header" => Plain::Header,
            other => return Err(TargetError::Scheme(other.escape_debug().to_string())),
        };
        let (host, port) = host_port(rest)?;
        let port = port.ok_or_else(|| TargetError::NoPort(wire, rest.escape_debug().to_string()))?;
        Ok(Target::Plain { wire, host, port })
    }
}

fn native(text: &str) -> Result<Target, TargetError> {
    // The last @ is the separator, as in ssh: user names may hold one, host names may not.
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(name(user, "user name")?), rest),
        None => (None, text),
    };
    let (host, port) = host_port(rest)?;
    Ok(Target::Native { user, host, port })
}

fn host_port(text: &str) -> Result<(String, Option<u16>), TargetError> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(TargetError::Brackets(text.escape_debug().to_string()));
        };
        let port = match rest {
            "" => None,
            rest => Some(port(
                rest.strip_prefix(':')
                    .ok_or_else(|| TargetError::Brackets(text.escape_debug().to_string()))?,
            )?),
        };
        return Ok((name(host, "host name")?, port));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(TargetError::Brackets(text.escape_debug().to_string())),
        Some((host, digits)) => Ok((name(host, "host name")?, Some(port(digits)?))),
        None => Ok((name(text, "host name")?, None)),
    }
}

fn port(digits: &str) -> Result<u16, TargetError> {
    match digits.parse() {
        Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(TargetError::Port(digits.escape_debug().to_string())),
    }
}

/// Names are data that ends up in known_hosts files and messages: none starts like an option, holds white space, or a control
/// character (PITFALLS 44).
fn name(text: &str, what: &'static str) -> Result<String, TargetError> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/\\\"'`$*?!,|;&<>(){}#".contains(c);
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || text.chars().any(odd) {
        return Err(TargetError::Name(text.escape_debug().to_string(), what));
    }
    Ok(text.to_owned())
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Target::Local => f.write_str("local"),
            Target::Native { host, port: None, .. } => f.write_str(host),
            Target::Native { host, port: Some(port), .. } => write!(f, "{}:{port}", bracketed(host)),
            // A path's own two slashes at the beginning would be taken for the URL's.
            Target::Unix { path } if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "unix://{}", path.display().to_string().escape_debug())
            }
            Target::Unix { path } => write!(f, "unix:{}", path.display().to_string().escape_debug()),
            Target::Plain { wire, host, port } => write!(f, "{wire}://{}:{port}", bracketed(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_mistaken_target_holds_is_escaped() {
        for text in [
            "h:\u{1b}[31m",
            "ssh\u{1b}[31m://x",
            "h:7366\n",
            "a\u{1b}:b:c",
            "[a\u{1b}",
            "raw://a\u{1b}",
            "\u{1b}",
            "u\u{9b}@h",
            "length://h\n:1",
            "[::1]\u{7}",
        ] {
            let error = text.parse::<super::Target>().unwrap_err().to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }

    use super::*;

    fn host(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Target, TargetError> {
        Ok(Target::Native { user: user.map(Into::into), host: host.into(), port })
    }

    #[test]
    fn every_form_of_a_target() {
        assert_eq!("web1".parse(), host(None, "web1", None));
        assert_eq!("me@web1:22".parse(), host(Some("me"), "web1", Some(22)));
        assert_eq!("a@b@web1".parse(), host(Some("a@b"), "web1", None));
        assert_eq!("[::1]:7".parse(), host(None, "::1", Some(7)));
        assert_eq!("me@[fe80::1%eth0]".parse(), host(Some("me"), "fe80::1%eth0", None));
        assert_eq!("native://web1:9/".parse(), host(None, "web1", Some(9)));
        assert_eq!("local".parse(), Ok(Target::Local));
        assert_eq!("unix:/run/r.sock".parse(), Ok(Target::Unix { path: "/run/r.sock".into() }));
        assert_eq!("unix:///run/r.sock".parse(), Ok(Target::Unix { path: "/run/r.sock".into() }));
        let slashes: Target = "unix:////run/r.sock".parse().unwrap();
        assert_eq!(slashes.to_string().parse(), Ok(slashes));
        let length = Target::Plain { wire: Plain::Length, host: "127.0.0.1".into(), port: 8080 };
        assert_eq!("length://127.0.0.1:8080".parse(), Ok(length));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            "-oProxyCommand=x",
            "me@-x",
            "a b",
            "a\nb",
            "$(id)",
            "`id`",
            "me@",
            "@host",
            "h:0",
            "h:70000",
            "h:+7",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
        assert_eq!("::1".parse::<Target>(), Err(TargetError::Brackets("::1".into())));
        assert_eq!("http://x".parse::<Target>(), Err(TargetError::Scheme("http".into())));
        assert_eq!("raw://x".parse::<Target>(), Err(TargetError::NoPort(Plain::Raw, "x".into())));
        assert_eq!("unix:".parse::<Target>(), Err(TargetError::NoPath));
    }

    #[test]
    fn a_name_with_escapes_is_shown_escaped() {
        let error = "h\u{1b}[2J".parse::<Target>().unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
