//! The user database: getpwuid_r(3) and getpwnam_r(3).

use std::ffi::{CStr, CString, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use remora_identity::Account;

/// What an account is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKey<'a> {
    /// Its user id.
    Uid(u32),
    /// Its login name.
    Name(&'a str),
}

/// An account that can't be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The database can't be read.
    #[error("can't read the user database")]
    Database(#[source] std::io::Error),
    /// The entry's name isn't UTF-8.
    #[error("the account's name isn't UTF-8")]
    Name,
}

/// The largest entry that is read, in bytes. Entries from directories with large groups stay far below.
const LARGEST_ENTRY: usize = 1 << 20;

/// Looks an account up; `None` where the database has none.
///
/// # Errors
/// [`AccountError`], an entry above 1 MiB included.
pub fn account(key: AccountKey<'_>) -> Result<Option<Account>, AccountError> {
    let name = match key {
        AccountKey::Uid(_) => None,
        AccountKey::Name(name) => match CString::new(name) {
            Ok(name) => Some(name),
            Err(_) => return Ok(None),
        },
    };
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        let status = match (key, &name) {
            (AccountKey::Uid(uid), _) => {
                // SAFETY: `entry`, `buffer` and `found` are writable and outlive the call, and the length is the buffer's.
                unsafe {
                    libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found)
                }
            }
            (AccountKey::Name(_), Some(name)) => {
                // SAFETY: as above; `name` ends with a NUL and outlives the call.
                unsafe {
                    libc::getpwnam_r(
                        name.as_ptr(),
                        entry.as_mut_ptr(),
                        buffer.as_mut_ptr(),
                        buffer.len(),
                        &mut found,
                    )
                }
            }
            (AccountKey::Name(_), None) => return Ok(None),
        };
        match status {
            0 if found.is_null() => return Ok(None),
            0 => {}
            libc::ERANGE if buffer.len() < LARGEST_ENTRY => {
                buffer = vec![0; buffer.len() * 2];
                continue;
            }
            libc::EINTR => continue,
            // What getpwnam_r(3) lists as "not found" on some systems.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            errno => return Err(AccountError::Database(std::io::Error::from_raw_os_error(errno))),
        }
        // SAFETY: status 0 and a result that isn't null: the C library filled `entry`, whose strings lie in `buffer`.
        let entry = unsafe { entry.assume_init() };
        // SAFETY: each is null or a string that ends with a NUL inside `buffer`, which lives to the end of this block.
        let (name, home, shell) =
            unsafe { (bytes(entry.pw_name), bytes(entry.pw_dir), bytes(entry.pw_shell)) };
        let path = |bytes: &[u8], fallback: &str| match bytes {
            [] => PathBuf::from(fallback),
            some => PathBuf::from(OsStr::from_bytes(some)),
        };
        return Ok(Some(Account {
            name: std::str::from_utf8(name).map_err(|_| AccountError::Name)?.to_owned(),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            home: path(home, "/"),
            shell: path(shell, "/bin/sh"),
        }));
    }
}

/// The bytes of a C string, none for null.
///
/// # Safety
/// `text` is null, or points to bytes up to a NUL that stay unchanged for `'a`.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::{AccountKey, account};

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let by_uid = account(AccountKey::Uid(0)).unwrap().unwrap();
        assert_eq!(by_uid.uid, 0);
        assert!(by_uid.shell.is_absolute());
        assert_eq!(account(AccountKey::Name(&by_uid.name)).unwrap(), Some(by_uid));
    }

    #[test]
    fn an_unknown_account_is_none() {
        assert_eq!(account(AccountKey::Name("no such account")).unwrap(), None);
        assert_eq!(account(AccountKey::Name("nul\0byte")).unwrap(), None);
        assert_eq!(account(AccountKey::Uid(u32::MAX - 7)).unwrap(), None);
    }
}
