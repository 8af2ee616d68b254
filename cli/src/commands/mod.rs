//! One file a verb.

pub(crate) mod exec;
mod local;
mod plain;
mod receipt;
pub(crate) mod serve;
mod streams;
pub(crate) mod wire;
