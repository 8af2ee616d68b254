//! One file a verb.

mod capture;
mod ending;
pub(crate) mod exec;
mod folder;
pub(crate) mod jobs;
mod local;
mod options;
mod outage;
mod place;
mod plain;
pub(crate) mod receipt;
pub(crate) mod replay;
mod save;
pub(crate) mod serve;
mod session;
pub(crate) mod sessions;
pub(crate) mod shell;
mod streams;
mod timeline;
mod tty;
pub(crate) mod wire;
