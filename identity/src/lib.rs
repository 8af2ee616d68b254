//! Who is who and who may what, without I/O loops: SSH keys, signatures, `authorized_keys`, `known_hosts`, policy.
//!
//! Bytes go in, values come out. No socket, clock, environment or home directory is read here; only [`strict_modes`] looks
//! at files, and only at their owners and modes. What is signed or verified is so by aws-lc.

pub mod agent;
pub mod auth;
pub mod authorized_keys;
pub mod known_hosts;
pub mod limits;
pub mod sshsig;
pub mod statement;
pub mod strict_modes;

mod der;
mod encoding;
mod key_file;
mod lines;
mod permit;
mod private_key;
mod public_key;
mod user_name;

pub use authorized_keys::AuthorizedKeys;
pub use encoding::Malformed;
pub use key_file::{EncryptedKey, KeyError, KeyFile, KeyState};
pub use known_hosts::{HostKeyKinds, KnownHosts, KnownKeys, Recorded, Verdict};
pub use lines::{FileTooLarge, LineProblem, LineProblemReason};
pub use permit::{Account, Authenticated, Authority, ForeignPeer, Permitted, Policy, Refusal};
pub use private_key::{CryptoFailure, PrivateKey, PrivateKeyDer, WriteError};
pub use public_key::{KeyAlgorithm, PublicKey, PublicKeyError, VerifyError};
pub use user_name::{BadUserName, UserName};
