//! The user's `known_hosts`: read before a connection, added to after a person (or `--accept-new`) accepted a key.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use remora_client::PublicKey;
use remora_identity::known_hosts::{KnownHosts, new_line};
use remora_identity::limits::KNOWN_HOSTS_MAX;

use crate::home;
use crate::printable::escape;
use crate::terminal::Failure;

/// The host keys of the whole machine, as ssh's GlobalKnownHostsFile.
const GLOBAL: &str = "/etc/ssh/ssh_known_hosts";

/// The files to look in; new keys go to the first.
pub(crate) fn files(named: Option<&Path>) -> Vec<PathBuf> {
    match named {
        Some(path) => vec![path.to_owned()],
        None => home::directory()
            .map(|home| home.join(".ssh/known_hosts"))
            .into_iter()
            .chain([GLOBAL.into()])
            .collect(),
    }
}

/// Finds a mistyped `--known-hosts` before anything is sent: its folder must be there, since a new key may have to be recorded.
///
/// # Errors
/// The folder isn't there.
pub(crate) fn check(named: Option<&Path>) -> Result<(), Failure> {
    match named.and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(Failure::usage(format!(
            "--known-hosts: there is no folder {}",
            escape(&folder.display().to_string())
        ))),
        _ => Ok(()),
    }
}

/// Reads the files that are there.
///
/// # Errors
/// One is there and can't be read: what it says against a host's key is not known then, and an empty one would say nothing.
pub(crate) fn read(files: &[PathBuf]) -> Result<KnownHosts, Failure> {
    let mut known = KnownHosts::default();
    for path in files {
        let name = path.display().to_string();
        let unusable = |error: String| {
            Failure::usage(format!("can't use {}: {error}", escape(&name)))
                .with_hint("it holds the keys of the hosts you know; name another file with --known-hosts")
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut text = Vec::new();
            File::open(path)?.take(KNOWN_HOSTS_MAX as u64 + 1).read_to_end(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => known.read(&name, &text).map_err(|error| unusable(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(error.to_string())),
        }
    }
    Ok(known)
}

/// Records a key as ssh would write it: hashed where the file's other names are, in one write.
///
/// # Errors
/// I/O errors; [`io::ErrorKind::InvalidInput`] for a host name that can't stand in the file.
pub(crate) fn record(file: &Path, host: &str, port: u16, key: &PublicKey) -> io::Result<()> {
    // ssh makes this folder too. Any other that is missing was mistyped.
    if let Some(folder) = file.parent().filter(|folder| folder.ends_with(".ssh") && !folder.exists()) {
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut opened = options.read(true).append(true).create(true).mode(0o600).open(file)?;
    let length = opened.metadata()?.len();
    let hashed = {
        let mut text = Vec::new();
        (&opened).take(KNOWN_HOSTS_MAX as u64).read_to_end(&mut text)?;
        text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"|1|"))
    };
    let salt = hashed.then(salt).transpose()?;
    let line = new_line(host, port, key, salt.as_ref())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut last = [b'\n'];
    if length > 0 {
        opened.read_exact_at(&mut last, length - 1)?;
    }
    // An unfinished last line must not swallow this one.
    let line = if last == *b"\n" { line } else { format!("\n{line}") };
    opened.write_all(line.as_bytes())
}

fn salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    rustix::rand::getrandom(salt.as_mut_slice(), rustix::rand::GetRandomFlags::empty())?;
    Ok(salt)
}
