//! The environment of a job: the base every job begins with, and what its request adds.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use remora_identity::Account;

use crate::config::BaseEnvironment;
use crate::error::{NotStarted, Step};

/// Names and values, each name once.
pub(crate) struct Environment {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Environment {
    /// The base for an account, with `added` laid over it.
    ///
    /// # Errors
    /// [`Step::EnvironmentName`], and [`Step::NulByte`] in a name or value.
    pub(crate) fn new(
        base: &BaseEnvironment,
        account: &Account,
        added: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, NotStarted> {
        let path = if account.uid == 0 { &base.root_path } else { &base.path };
        let mut values = BTreeMap::new();
        let mut set = |name: &str, value: &OsStr| {
            values.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        };
        set("HOME", account.home.as_os_str());
        set("USER", account.name.as_ref());
        set("LOGNAME", account.name.as_ref());
        set("SHELL", account.shell.as_os_str());
        set("PATH", path);
        if let Some(lang) = &base.lang {
            set("LANG", lang);
        }
        for (name, value) in added {
            if name.is_empty() || name.contains(&b'=') {
                return Err(NotStarted::bytes(Step::EnvironmentName, None, &name));
            }
            if name.contains(&0) || value.contains(&0) {
                return Err(NotStarted::bytes(Step::NulByte, None, &name));
            }
            values.insert(name, value);
        }
        Ok(Environment { values })
    }

    /// Names and values as they are.
    pub(crate) fn of(values: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Environment { values }
    }

    /// Names and values.
    pub(crate) fn into_map(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.values
    }

    /// The value of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// `NAME=value` each, as execve(2) takes them.
    pub(crate) fn into_strings(self) -> Result<Vec<CString>, NotStarted> {
        self.values
            .into_iter()
            .map(|(mut name, value)| {
                let length = name.len();
                name.push(b'=');
                name.extend_from_slice(&value);
                CString::new(name).map_err(|error| {
                    let bytes = error.into_vec();
                    NotStarted::bytes(Step::NulByte, None, bytes.get(..length).unwrap_or_default())
                })
            })
            .collect()
    }
}
