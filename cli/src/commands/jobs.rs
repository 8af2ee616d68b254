//! Detached commands: `remora jobs`, and the verbs in the folder of this name.

mod ask;
pub(crate) mod attach;
mod end;
mod keep;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod start;
pub(crate) mod verbs;
pub(crate) mod wait;

pub(super) use end::full;
