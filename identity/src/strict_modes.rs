//! Who could have changed a file, and who could have read it: sshd's StrictModes and ssh's rule for private keys.
//!
//! The one place of this crate that looks at the file system, and it looks at owners and modes only. The file is checked by its
//! open descriptor, so that what was checked is what is read; its directories by their real path, as sshd does
//! (misc.c, safe_path).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, fstat, stat};

/// Bits that let group or others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Bits that let group or others do anything.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Why a file can't be relied on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StrictModesError {
    /// The path or a directory above it couldn't be looked at.
    #[error("{}: cannot be checked", .path.display())]
    Unreadable {
        /// What couldn't be looked at.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{}: not a regular file", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else owns it, and so could change it.
    #[error("{}: owned by uid {owner}, and only uid {expected} or root may own it", .path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be, or root's.
        expected: u32,
    },
    /// Group or others can write to it.
    #[error("{}: mode {mode:04o} lets others write", .path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Group or others can read a private key, or write to it.
    #[error("{}: mode {mode:04o} lets others at a private key", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl StrictModesError {
    /// What to try, as a command line. The path is quoted for a POSIX shell.
    pub fn hint(&self) -> Option<String> {
        match self {
            StrictModesError::Writable { path, .. } => Some(format!("chmod go-w {}", quoted(path))),
            StrictModesError::Exposed { path, .. } => Some(format!("chmod go-rwx {}", quoted(path))),
            StrictModesError::Owner { path, expected, .. } => {
                Some(format!("chown {expected} {}", quoted(path)))
            }
            StrictModesError::Unreadable { .. } | StrictModesError::NotAFile { .. } => None,
        }
    }
}

/// Checks that nobody but `uid` and root could have changed `file`, which was opened from `path`: it is a regular file, it and
/// every directory above it belong to one of the two, and neither group nor others can write to any of them. The walk ends
/// with `home`, or at `/` for a file outside.
///
/// # Errors
/// [`StrictModesError`] names the first path that fails, going upwards.
pub fn check_file(file: impl AsFd, path: &Path, home: &Path, uid: u32) -> Result<(), StrictModesError> {
    let found = fstat(file).map_err(|cause| unreadable(path, cause.into()))?;
    check_kind(&found, path)?;
    check_owner_and_mode(&found, path, uid)?;

    let real = fs::canonicalize(path).map_err(|cause| unreadable(path, cause))?;
    // A home that isn't there ends no walk.
    let home = fs::canonicalize(home).ok();
    for directory in real.ancestors().skip(1) {
        let found = stat(directory).map_err(|cause| unreadable(directory, cause.into()))?;
        check_owner_and_mode(&found, directory, uid)?;
        if home.as_deref() == Some(directory) {
            break;
        }
    }
    Ok(())
}

/// Checks that a private key file can't be read by others: a regular file whose mode gives group and others nothing. As ssh
/// does (authfile.c, sshkey_perm_ok), a file of another owner than `uid` passes: its owner decides who reads it, and
/// whoever isn't its owner can't mend it.
///
/// # Errors
/// [`StrictModesError::Exposed`] or [`StrictModesError::NotAFile`].
pub fn check_private_key(file: impl AsFd, path: &Path, uid: u32) -> Result<(), StrictModesError> {
    let found = fstat(file).map_err(|cause| unreadable(path, cause.into()))?;
    check_kind(&found, path)?;
    let mode = permissions(&found);
    if found.st_uid == uid && mode & OPEN_TO_OTHERS != 0 {
        return Err(StrictModesError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

fn check_kind(found: &Stat, path: &Path) -> Result<(), StrictModesError> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(StrictModesError::NotAFile { path: path.to_owned() }),
    }
}

fn check_owner_and_mode(found: &Stat, path: &Path, uid: u32) -> Result<(), StrictModesError> {
    let owner = found.st_uid;
    if owner != uid && owner != 0 {
        return Err(StrictModesError::Owner { path: path.to_owned(), owner, expected: uid });
    }
    let mode = permissions(found);
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(StrictModesError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn permissions(found: &Stat) -> u32 {
    found.st_mode & 0o7777
}

fn unreadable(path: &Path, cause: io::Error) -> StrictModesError {
    StrictModesError::Unreadable { path: path.to_owned(), cause }
}

/// A path in single quotes, unless it is plain.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A home with `.ssh/authorized_keys`, all in order.
    fn home() -> (tempfile::TempDir, PathBuf, u32) {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        create_dir(&ssh).unwrap();
        chmod(&ssh, 0o700);
        let path = ssh.join("authorized_keys");
        File::create(&path).unwrap();
        chmod(&path, 0o644);
        (home, path, rustix::process::getuid().as_raw())
    }

    fn check(home: &Path, path: &Path, uid: u32) -> Result<(), StrictModesError> {
        check_file(File::open(path).unwrap(), path, home, uid)
    }

    #[test]
    fn a_file_that_only_its_owner_can_change_passes() {
        let (home, path, uid) = home();
        check(home.path(), &path, uid).unwrap();
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_to_is_refused_by_name() {
        let (home, path, uid) = home();
        let real = home.path().canonicalize().unwrap();
        for (changed, mode, usual) in [
            (real.join(".ssh/authorized_keys"), 0o664, 0o644),
            (real.join(".ssh"), 0o702, 0o700),
            (real.clone(), 0o770, 0o700),
        ] {
            chmod(&changed, mode);
            let error = check(&real, &real.join(".ssh/authorized_keys"), uid).unwrap_err();
            assert!(
                matches!(&error, StrictModesError::Writable { path, mode: found } if *path == changed && *found == mode),
                "{error:?}"
            );
            assert_eq!(error.hint().unwrap(), format!("chmod go-w {}", changed.display()));
            chmod(&changed, usual);
        }
        check(home.path(), &path, uid).unwrap();
    }

    #[test]
    fn the_walk_ends_at_home_and_goes_to_the_root_elsewhere() {
        let outer = tempfile::tempdir().unwrap();
        let home = outer.path().join("home");
        create_dir(&home).unwrap();
        chmod(&home, 0o755);
        let path = home.join("keys");
        File::create(&path).unwrap();
        chmod(&path, 0o600);
        chmod(outer.path(), 0o777);
        let uid = rustix::process::getuid().as_raw();
        check(&home, &path, uid).unwrap();
        assert!(matches!(
            check(Path::new("/nonexistent"), &path, uid),
            Err(StrictModesError::Writable { .. })
        ));
    }

    #[test]
    fn a_link_is_followed_to_where_the_file_really_is() {
        let (home, path, uid) = home();
        let elsewhere = tempfile::tempdir().unwrap();
        let open = elsewhere.path().join("open");
        create_dir(&open).unwrap();
        File::create(open.join("keys")).unwrap();
        chmod(&open.join("keys"), 0o600);
        chmod(&open, 0o777);
        std::fs::remove_file(&path).unwrap();
        symlink(open.join("keys"), &path).unwrap();
        assert!(matches!(check(home.path(), &path, uid), Err(StrictModesError::Writable { .. })));
    }

    #[test]
    fn another_owner_is_refused() {
        let (home, path, uid) = home();
        let result = check(home.path(), &path, uid.wrapping_add(1));
        // Root may own everybody's files.
        if uid == 0 {
            result.unwrap();
        } else {
            assert!(
                matches!(result, Err(StrictModesError::Owner { owner, expected, .. }) if owner == uid && expected == uid + 1)
            );
        }
    }

    #[test]
    fn another_owner_is_told_from_the_user_and_root() {
        let (_home, path, _) = home();
        let mut found = stat(&path).unwrap();
        found.st_uid = 1234;
        assert!(check_owner_and_mode(&found, &path, 1234).is_ok());
        found.st_uid = 0;
        assert!(check_owner_and_mode(&found, &path, 1234).is_ok());
        found.st_uid = 5678;
        let error = check_owner_and_mode(&found, &path, 1234).unwrap_err();
        assert!(matches!(error, StrictModesError::Owner { owner: 5678, expected: 1234, .. }));
        assert!(error.hint().unwrap().starts_with("chown 1234 "));
    }

    #[test]
    fn a_folder_in_place_of_the_file_is_refused() {
        let (home, path, uid) = home();
        let ssh = path.parent().unwrap();
        assert!(matches!(check(home.path(), ssh, uid), Err(StrictModesError::NotAFile { .. })));
    }

    #[test]
    fn a_private_key_that_others_can_read_is_refused() {
        let (_home, path, uid) = home();
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o700, true), (0o640, false), (0o604, false), (0o620, false)]
        {
            chmod(&path, mode);
            let result = check_private_key(
                rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap(),
                &path,
                uid,
            );
            assert_eq!(result.is_ok(), fine, "{mode:o}");
            if let Err(error) = result {
                assert!(error.hint().unwrap().starts_with("chmod go-rwx "));
            }
        }
    }

    #[test]
    fn hints_quote_paths_for_a_shell() {
        assert_eq!(quoted(Path::new("/home/a b/it's")), r"'/home/a b/it'\''s'");
    }
}
