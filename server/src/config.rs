//! The configuration file: TOML, parsed once, into types. Flags win over it; that is the command line's business.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Longest configuration file, bytes.
const MAX: u64 = 1024 * 1024;
/// Longest duration that can be configured, seconds.
const WEEK: u64 = 7 * 24 * 60 * 60;

/// What a configuration file may say. Absent means: the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct FileConfig {
    /// Listening URLs; not none.
    #[serde(deserialize_with = "somewhere")]
    pub listen: Option<Vec<String>>,
    /// Files of host keys.
    pub host_key: Option<Vec<PathBuf>>,
    /// authorized_keys files, with `%h`, `%u` and `%%`.
    pub authorized_keys: Option<Vec<String>>,
    /// Where the server keeps what it must remember.
    pub state_dir: Option<PathBuf>,
    /// Seconds jobs may go on after the server was told to stop, a week at most.
    #[serde(deserialize_with = "seconds")]
    pub stop_grace_seconds: Option<u64>,
    /// Whether commands that run end with the server when that is told to stop.
    pub stop_jobs: Option<bool>,
    /// Seconds a job is kept at the most while nobody is connected to it, a week at most.
    #[serde(deserialize_with = "seconds")]
    pub max_linger_seconds: Option<u64>,
    /// Connections in all.
    pub max_connections: Option<usize>,
    /// Connections that have not proven who they are.
    pub max_unauthenticated: Option<usize>,
    /// Plain wires on other than loopback addresses.
    pub allow_plaintext_network: Option<bool>,
    /// Plain wires of a server that runs as root.
    pub allow_plaintext_root: Option<bool>,
    /// Seconds a session may be without a job before it is forgotten, a week at most. Read at the start alone.
    #[serde(deserialize_with = "seconds")]
    pub session_idle_seconds: Option<u64>,
    /// Sessions of one account and key. Read at the start alone.
    pub max_sessions: Option<usize>,
    /// Seconds for which a detached job that is over is kept, a week at most.
    #[serde(deserialize_with = "seconds")]
    pub detached_kept_seconds: Option<u64>,
    /// How many detached jobs of one account and key that are over are kept.
    pub max_detached_kept: Option<usize>,
    /// Limits of each job.
    pub limits: LimitsConfig,
}

/// Limits of each job. Absent means: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Wall time, seconds, a week at most.
    #[serde(deserialize_with = "seconds")]
    pub wall_seconds: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of stdout and stderr together.
    pub output_bytes: Option<u64>,
}

/// A duration in seconds. What is longer than [`WEEK`] is a slip, such as milliseconds, and would overflow clocks somewhere.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(from)? {
        seconds if seconds > WEEK => Err(D::Error::custom(format!(
            "{seconds} seconds are too long: a week, {WEEK} seconds, is the most"
        ))),
        seconds => Ok(Some(seconds)),
    }
}

/// Where to listen. A server that listens nowhere is believed to run.
fn somewhere<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let urls = Vec::<String>::deserialize(from)?;
    if urls.is_empty() {
        return Err(D::Error::custom(
            "listen = [] would serve nobody; leave it out for native://0.0.0.0:7366",
        ));
    }
    Ok(Some(urls))
}

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read.
    #[error("configuration {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is too long to be one.
    #[error("configuration {}: longer than {MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Something in it makes no sense.
    #[error("configuration {}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What.
        what: String,
    },
}

impl FileConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the line where one is to blame.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Io { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > MAX {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        FileConfig::parse(&text).map_err(|(line, what)| ConfigError::Syntax {
            path: path.to_owned(),
            line,
            what,
        })
    }

    /// Parses the text of a file; on failure gives the line, from 1, and what is wrong there.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let what = error.message().lines().collect::<Vec<_>>().join("; ");
            let what = in_words(&what).unwrap_or(what);
            (before.matches('\n').count() + 1, what)
        })
    }
}

/// What the parser says of a value of the wrong type, without the words of a programming language; none for anything else.
fn in_words(message: &str) -> Option<String> {
    let message =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    // What was found is first, and may be any text.
    let (found, wanted) = message.rsplit_once(", expected ")?;
    let wanted = match wanted {
        "u64" | "usize" => "a whole number, 0 or more",
        "a sequence" => "a list",
        "a string" | "path string" => "text",
        "a boolean" => "true or false",
        struct_name if struct_name.starts_with("struct ") => "a section, as [limits]",
        _ => return None,
    };
    let kinds = [
        ("string ", "text "),
        ("integer ", "number "),
        ("floating point ", "number "),
        ("boolean ", ""),
        ("sequence", "a list"),
        ("map", "a section"),
    ];
    let found = kinds
        .iter()
        .find_map(|(theirs, ours)| found.strip_prefix(theirs).map(|rest| format!("{ours}{rest}")))
        .unwrap_or_else(|| found.to_owned());
    Some(format!("expected {wanted}; found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let (line, what) = FileConfig::parse("host_key = []\n\nlisen = []\n").unwrap_err();
        assert_eq!(line, 3);
        assert!(what.contains("lisen"), "{what}");
        let (line, what) = FileConfig::parse("[limits]\nwall_seconds = 1\nmemory = 5\n").unwrap_err();
        assert_eq!(line, 3);
        assert!(what.contains("memory"), "{what}");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line() {
        assert_eq!(FileConfig::parse("\nmax_connections = \"many\"\n").unwrap_err().0, 2);
        assert_eq!(FileConfig::parse("[limits]\nwall_seconds = -1\n").unwrap_err().0, 2);
    }

    #[test]
    fn a_wrong_type_is_told_in_words() {
        for (text, expected) in [
            ("max_connections = \"many\"", "expected a whole number, 0 or more; found text \"many\""),
            (
                "max_connections = \"a, expected b\"",
                "expected a whole number, 0 or more; found text \"a, expected b\"",
            ),
            ("max_connections = -1", "expected a whole number, 0 or more; found number `-1`"),
            ("stop_grace_seconds = 1.5", "expected a whole number, 0 or more; found number `1.5`"),
            ("stop_grace_seconds = true", "expected a whole number, 0 or more; found `true`"),
            ("listen = 5", "expected a list; found number `5`"),
            ("listen = [5]", "expected text; found number `5`"),
            ("host_key = [[]]", "expected text; found a list"),
            ("state_dir = {}", "expected text; found a section"),
            ("allow_plaintext_root = \"yes\"", "expected true or false; found text \"yes\""),
            ("limits = 7", "expected a section, as [limits]; found number `7`"),
        ] {
            assert_eq!(FileConfig::parse(text).unwrap_err(), (1, expected.to_owned()));
        }
    }

    #[test]
    fn listening_nowhere_is_refused_with_its_line() {
        let (line, what) = FileConfig::parse("\nlisten = []\n").unwrap_err();
        assert_eq!(line, 2);
        assert!(what.contains("would serve nobody"), "{what}");
    }

    #[test]
    fn a_duration_of_more_than_a_week_is_refused_with_its_line() {
        for (text, at) in [("\nstop_grace_seconds = 604801\n", 2), ("[limits]\n\nwall_seconds = 604801\n", 3)]
        {
            let (line, what) = FileConfig::parse(text).unwrap_err();
            assert_eq!(line, at, "{what}");
            assert!(what.contains("604801 seconds are too long"), "{what}");
        }
        let config =
            FileConfig::parse("stop_grace_seconds = 604800\n[limits]\nwall_seconds = 604800\n").unwrap();
        assert_eq!((config.stop_grace_seconds, config.limits.wall_seconds), (Some(WEEK), Some(WEEK)));
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = "listen = [\"unix:/run/r.sock\"]\nstop_grace_seconds = 5\n[limits]\nopen_files = 64\n";
        let config = FileConfig::parse(text).unwrap();
        assert_eq!(config.listen, Some(vec!["unix:/run/r.sock".to_owned()]));
        assert_eq!(config.limits.open_files, Some(64));
        assert_eq!(config.host_key, None);
    }
}
