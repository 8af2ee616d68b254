//! Accept, authenticate, decide, dispatch.
//!
//! [`serve()`] runs the listeners until it is told to stop, and returns when the last handler has ended. What a connection may
//! do is judged in `remora-identity`; processes are `remora-engine`'s. This crate translates between the wires and the engine.

mod account;
mod admission;
mod attachment;
mod authenticate;
mod config;
mod connection;
mod detached;
mod evidence;
mod files;
mod handshake;
mod host_keys;
mod job;
mod key_files;
mod key_path;
mod listen;
mod lost;
mod plain;
mod record;
mod registry;
mod serve;
mod sessions;
mod settings;

pub use account::own_account;
pub use config::{ConfigError, FileConfig, LimitsConfig};
pub use host_keys::{HostKeyFileError, load_host_keys};
pub use key_path::{KeyPath, KeyPathError};
pub use listen::{ListenError, ListenUrl, Listener, PlainWire, UrlError, bind};
pub use remora_engine::SessionLimits;
pub use remora_engine::{EngineConfig, OnlyFront, Stage, Warden, WardenEnd, WardenError, WardenLink};
pub use remora_identity::Account;
pub use serve::{ListenerChange, Phase, local, serve};
pub use settings::{JobLimits, Settings, SettingsError};

/// Takes bytes for each note that is read back from the disk: for the fuzzer, which sees only what is public.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn read_back(bytes: &[u8]) {
    if let Some(noted) = record::Record::noted(bytes) {
        assert!(noted.note(&noted.start).len() <= 2 * bytes.len() + 100, "more than there was");
    }
    if let Ok(note) = <detached::Note as prost::Message>::decode(bytes) {
        let _ = (note.owner(), note.subject());
    }
    remora_engine::read_back(bytes);
}
