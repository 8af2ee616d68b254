//! Run commands on other machines, and get them back whole.
//!
//! [`connect()`] gives a [`Connection`]; [`Connection::start`] gives a [`Job`], whose streams are read and written while it
//! runs and whose [`Job::wait`] gives the receipt, checked against what arrived. This library never prints, and reads
//! no environment and no home directory: what it needs to know is in [`Options`].

mod auth;
mod connect;
mod connection;
mod dial;
mod evidence;
mod job;
mod jobs;
mod liveness;
mod outage;
mod outcome;
pub mod plain;
mod request;
mod state;
mod stdin;
mod target;
mod terminal;

pub use auth::{Signer, UserKey, UserKeyError};
pub use connect::{
    ConnectError, HostTrust, Observer, Opened, Options, Step, connect, connect_by, connect_local,
    connect_unix,
};
pub use connection::{Connection, VERDICT};
pub use dial::{DIAL_TIMEOUT, Dial, DialError, Dialed, Dialing};
pub use job::{Finished, Job, JobError, Reader, Writer};
pub use liveness::SILENCE;
pub use outage::{Heartbeat, LINGER, Lasting, News, NewsObserver, RECONNECT};
pub use outcome::{Class, Outcome, exit_status, outcome_of};
pub use remora_identity::PublicKey;
pub use remora_identity::statement::ReceiptFile;
pub use remora_wire::native::Stream;
pub use remora_wire::native::proto;
pub use request::{AskError, Request, StartError, session_name};
pub use target::{DEFAULT_PORT, Plain, Target, TargetError};
pub use terminal::{terminal_like, window_size};
