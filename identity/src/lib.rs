//! Who is who and who may what, without I/O loops: SSH keys, signatures, `authorized_keys`, `known_hosts`, policy.

mod permit;

pub use permit::{Account, Authenticated, Authority, ForeignPeer, Permitted, Policy, Refusal};
