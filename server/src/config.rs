//! The configuration file: TOML, parsed once, into types. Flags win over it; that is the command line's business.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Longest configuration file, bytes.
const MAX: u64 = 1024 * 1024;

/// What a configuration file may say. Absent means: the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct FileConfig {
    /// Listening URLs.
    pub listen: Option<Vec<String>>,
    /// Files of host keys.
    pub host_key: Option<Vec<PathBuf>>,
    /// authorized_keys files, with `%h` and `%u`.
    pub authorized_keys: Option<Vec<String>>,
    /// Where the server keeps what it must remember.
    pub state_dir: Option<PathBuf>,
    /// Seconds jobs may go on after the server was told to stop.
    pub stop_grace_seconds: Option<u64>,
    /// Connections in all.
    pub max_connections: Option<usize>,
    /// Connections that have not proven who they are.
    pub max_unauthenticated: Option<usize>,
    /// Plain wires on other than loopback addresses.
    pub allow_plaintext_network: Option<bool>,
    /// Plain wires of a server that runs as root.
    pub allow_plaintext_root: Option<bool>,
    /// Limits of each job.
    pub limits: LimitsConfig,
}

/// Limits of each job. Absent means: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Wall time, seconds.
    pub wall_seconds: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of stdout and stderr together.
    pub output_bytes: Option<u64>,
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
            (before.matches('\n').count() + 1, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let (line, what) = FileConfig::parse("listen = []\n\nlisen = []\n").unwrap_err();
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
    fn a_whole_file_is_read() {
        let text = "listen = [\"unix:/run/r.sock\"]\nstop_grace_seconds = 5\n[limits]\nopen_files = 64\n";
        let config = FileConfig::parse(text).unwrap();
        assert_eq!(config.listen, Some(vec!["unix:/run/r.sock".to_owned()]));
        assert_eq!(config.limits.open_files, Some(64));
        assert_eq!(config.host_key, None);
    }
}
