//! One file a verb.

mod capture;
pub(crate) mod exec;
mod local;
mod plain;
mod receipt;
mod save;
pub(crate) mod serve;
mod streams;
pub(crate) mod wire;
