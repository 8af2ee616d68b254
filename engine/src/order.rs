//! What a keeper or the spawner is told to run: a request laid out for the system calls. Plain data.

use std::ffi::CString;

use crate::request::{Stdin, Terminal};

/// A request as strings that end with a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Paths to execute, in the order in which they are tried.
    pub(crate) candidates: Vec<CString>,
    /// Arguments, the command's name first.
    pub(crate) argv: Vec<CString>,
    /// `NAME=value` each.
    pub(crate) envp: Vec<CString>,
    pub(crate) cwd: CString,
    /// Nobody asked for that directory: it is the home, and the root will do instead.
    pub(crate) or_root: bool,
    pub(crate) umask: Option<u32>,
    pub(crate) stdin: Stdin,
    pub(crate) terminal: Option<Terminal>,
    /// Wait for the end of each stream, whoever holds it open.
    pub(crate) wait_streams: bool,
    /// Tell in which order its streams were read.
    pub(crate) keep_order: bool,
}
