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

/// Check a receipt that `remora exec --receipt` wrote, or a command that was kept
///
/// Its signature must be good, and its key one that known_hosts has and doesn't
/// revoke; saved output must be what the receipt says, byte for byte. The exit
/// status is 0 when all is good and 1 when something isn't, with one line that
/// says what.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "environment: HOME")]
pub(crate) struct Verify {
    /// The receipt, or the directory of --keep, whose output is compared, too
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

/// Print a command that was kept by --keep, as it looked
///
/// stdout and stderr come in the order in which the host read them, each to its
/// own of ours. First the output is compared with the receipt; where it isn't
/// what that says, nothing is printed, and the exit status is 1. Whether the
/// receipt is a known host's, `remora receipt verify DIR` tells.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Replay {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
