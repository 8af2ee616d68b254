//! `remora receipt`, as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Receipt {
    #[command(subcommand)]
    pub(crate) command: ReceiptCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    Verify(Verify),
    Show(Show),
}

/// Check a receipt that `remora exec --receipt` wrote
///
/// Its signature must be good, and its key one that known_hosts has and doesn't
/// revoke; saved output must be what the receipt says, byte for byte. The exit
/// status is 0 when all is good and 1 when something isn't, with one line that
/// says what.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "environment: HOME")]
pub(crate) struct Verify {
    /// The receipt
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Compare the job's stdout with this file
    #[arg(long, value_name = "FILE")]
    pub(crate) stdout: Option<PathBuf>,

    /// Compare the job's stderr with this file
    #[arg(long, value_name = "FILE")]
    pub(crate) stderr: Option<PathBuf>,

    /// Look up host keys in this file [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,

    /// Accept the key of this host alone, named as for exec, with its port
    /// [default: of any host in known_hosts]
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tell what a receipt says, without checking its signature
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The receipt
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
