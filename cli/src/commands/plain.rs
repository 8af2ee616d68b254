//! `remora exec` on a plain wire.

use remora_client::{Class, Outcome, Plain};

use crate::arguments::Exec;
use crate::terminal::Failure;

pub(crate) async fn run(_exec: &Exec, _wire: Plain, _host: &str, _port: u16) -> Result<Outcome, Failure> {
    Err(Failure::new(Class::Internal, "", "not there yet"))
}
