//! The account this process runs as.

use remora_engine::sys::{AccountKey, account};
use remora_identity::Account;

/// The account of this process's effective user id; none when the user database doesn't know it.
pub fn own_account() -> Option<Account> {
    account(AccountKey::Uid(rustix::process::geteuid().as_raw())).ok().flatten()
}
