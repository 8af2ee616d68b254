//! What a receipt carries to be kept: its statement, signed by the host key of the connection where there is one.

use remora_identity::statement::{Command, ReceiptKey};
use remora_net::{command_of, statement_of};
use remora_wire::native::proto;
use tracing::error;

/// What makes a job's receipt worth keeping.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// The job's command, where its client asked for a statement: signing costs up to a millisecond.
    command: Option<Command>,
}

impl Evidence {
    /// What a start message asks for.
    pub(crate) fn new(start: &proto::Start) -> Self {
        let command = start.command.as_ref().filter(|_| start.sign_receipt).map(command_of);
        Evidence { command }
    }

    /// The receipt with what belongs to it on a connection with this host key.
    pub(crate) fn attach(
        &self,
        mut receipt: proto::Receipt,
        host_key: Option<&ReceiptKey>,
    ) -> proto::Receipt {
        if let Some(key) = host_key {
            receipt.host_key_fingerprint = key.public().fingerprint();
        }
        let statement = self.command.as_ref().and_then(|command| statement_of(&receipt, command));
        match (statement, host_key) {
            (None, _) => {}
            (Some(statement), None) => receipt.statement = statement.compose().into_bytes(),
            (Some(statement), Some(key)) => match key.sign(statement) {
                Ok(signed) => {
                    receipt.statement = signed.text.into_bytes();
                    receipt.sshsig = signed.sshsig;
                }
                // The job is over all the same, and its receipt is true.
                Err(fault) => error!(%fault, "a receipt could not be signed"),
            },
        }
        receipt
    }
}
