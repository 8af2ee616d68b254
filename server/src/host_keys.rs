//! The host's keys: those of sshd where they can be read, else one of our own, made once.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use remora_identity::{CryptoFailure, KeyError, KeyFile, PrivateKey, WriteError, limits, strict_modes};
use remora_net::tls::{HostKeyError, HostKeys};

use crate::handshake::PROTOCOL;

/// Where sshd keeps its host keys, the preferred type first (sshd_config(5), HostKey).
const SSHD: [&str; 3] =
    ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_rsa_key"];

/// Why a host key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyFileError {
    /// The file can't be read or written.
    #[error("host key {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("host key {}", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// What is wrong with owner or mode.
        #[source]
        source: strict_modes::StrictModesError,
    },
    /// It isn't a private key that can be used.
    #[error("host key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// It is under a passphrase, which nobody is there to type.
    #[error("host key {} is under a passphrase", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// No new key could be made.
    #[error("can't make a host key")]
    Generate(#[from] CryptoFailure),
    /// No new key could be written.
    #[error("can't write a host key")]
    Write(#[from] WriteError),
    /// TLS can't use a key.
    #[error("can't use the host keys for TLS")]
    Tls(#[from] HostKeyError),
}

impl HostKeyFileError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            HostKeyFileError::Mode { source, .. } => source.hint(),
            HostKeyFileError::Key { source, .. } => source.hint().map(str::to_owned),
            HostKeyFileError::Encrypted { .. } => Some("name another with --host-key".to_owned()),
            HostKeyFileError::Io { .. } => {
                Some("name a readable one with --host-key, or another --state-dir".to_owned())
            }
            _ => None,
        }
    }
}

/// The keys to show, and the path of one that was made just now, if one was.
///
/// `files` are those that were named; without any, sshd's are taken where they can be read, and otherwise the one in
/// `state_dir`, which is made when it isn't there.
///
/// # Errors
/// [`HostKeyFileError`]: a named file that can't be used, or any file that others can read.
pub fn load_host_keys(
    files: &[PathBuf],
    state_dir: &Path,
) -> Result<(HostKeys, Option<PathBuf>), HostKeyFileError> {
    if !files.is_empty() {
        let keys = files.iter().map(|path| load(path)).collect::<Result<Vec<_>, _>>()?;
        return Ok((HostKeys::new(keys, PROTOCOL)?, None));
    }
    let mut keys = Vec::new();
    for path in SSHD {
        match load(Path::new(path)) {
            Ok(key) => keys.push(key),
            Err(HostKeyFileError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    if !keys.is_empty() {
        return Ok((HostKeys::new(keys, PROTOCOL)?, None));
    }
    let path = state_dir.join("host_ed25519_key");
    match load(&path) {
        Ok(key) => Ok((HostKeys::new([key], PROTOCOL)?, None)),
        Err(HostKeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = PrivateKey::generate_ed25519()?;
            write(&path, key.to_openssh("remora host key")?.as_bytes())
                .map_err(|source| HostKeyFileError::Io { path: path.clone(), source })?;
            Ok((HostKeys::new([key], PROTOCOL)?, Some(path)))
        }
        Err(error) => Err(error),
    }
}

fn load(path: &Path) -> Result<PrivateKey, HostKeyFileError> {
    let io = |source| HostKeyFileError::Io { path: path.to_owned(), source };
    let file = crate::files::open(path).map_err(io)?;
    strict_modes::check_private_key(&file, path, rustix::process::geteuid().as_raw())
        .map_err(|source| HostKeyFileError::Mode { path: path.to_owned(), source })?;
    let mut text = Vec::new();
    file.take(limits::KEY_FILE_MAX as u64 + 1).read_to_end(&mut text).map_err(io)?;
    let key =
        KeyFile::parse(&text).map_err(|source| HostKeyFileError::Key { path: path.to_owned(), source })?;
    key.into_plain().ok_or_else(|| HostKeyFileError::Encrypted { path: path.to_owned() })
}

/// Written beside and renamed, so that a crash leaves a whole key or none; never over an existing one.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(folder)?;
    }
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| std::fs::hard_link(&draft, path));
    let _ = std::fs::remove_file(&draft);
    placed
}
