//! A receipt's statement and signature, compared with what was asked for and with the receipt itself.

use remora_identity::PublicKey;
use remora_identity::statement::{Command, ReceiptFile, verify};
use remora_net::statement_of;
use remora_wire::limits;
use remora_wire::native::proto;

use crate::job::JobError;

/// What a client knows of a job whose receipt it wants to keep.
pub(crate) struct Expected {
    pub(crate) job_id: [u8; limits::JOB_ID],
    pub(crate) user: String,
    pub(crate) command: Command,
}

impl Expected {
    /// The receipt to keep: signed, where the host has proven on this connection to have `host_key`, and has signed. None where it sent no statement.
    ///
    /// # Errors
    /// [`JobError::Signature`], [`JobError::Contradiction`].
    pub(crate) fn check(
        &self,
        receipt: &proto::Receipt,
        host_key: Option<&PublicKey>,
    ) -> Result<Option<ReceiptFile>, JobError> {
        if receipt.statement.is_empty() && receipt.sshsig.is_empty() {
            return Ok(None);
        }
        let contradiction = |what: &str| JobError::Contradiction(what.to_owned());
        if receipt.job_id != self.job_id {
            return Err(contradiction("it is another job's"));
        }
        if receipt.user != self.user {
            return Err(contradiction("it is another user's"));
        }
        let mut told =
            statement_of(receipt, &self.command).ok_or_else(|| contradiction("it is not whole"))?;
        let sshsig = (!receipt.sshsig.is_empty()).then(|| receipt.sshsig.clone());
        match (&sshsig, host_key) {
            (Some(sshsig), Some(key)) => {
                verify(&receipt.statement, sshsig, key).map_err(JobError::Signature)?;
                told.host_key = Some(key.fingerprint());
            }
            (Some(_), None) => return Err(contradiction("it is signed, and the host has shown no key")),
            (None, _) => {}
        }
        let told = told.compose();
        if told.as_bytes() != receipt.statement {
            // Told by the name of the first line that differs: what stands there is the host's.
            let stated = receipt.statement.split(|byte| *byte == b'\n');
            let line = told.split('\n').zip(stated).find(|(told, stated)| told.as_bytes() != *stated);
            let name = line.and_then(|(told, _)| told.split(' ').next()).unwrap_or("end");
            return Err(JobError::Contradiction(format!("its statement has another {name}")));
        }
        Ok(Some(ReceiptFile { statement: receipt.statement.clone(), sshsig }))
    }
}

#[cfg(test)]
mod tests {
    use remora_identity::PrivateKey;
    use remora_identity::statement::ReceiptKey;

    use super::*;

    fn check(key: Option<&ReceiptKey>, receipt: &proto::Receipt) -> Result<Option<ReceiptFile>, JobError> {
        let expected = Expected { job_id: [7; 16], user: "me".to_owned(), command: Command::line(b"true") };
        expected.check(receipt, key.map(ReceiptKey::public))
    }

    fn key() -> ReceiptKey {
        ReceiptKey::new(PrivateKey::generate_ed25519().unwrap())
    }

    fn receipt() -> proto::Receipt {
        let report = proto::StreamReport { length: 3, blake3: vec![1; 32], ..proto::StreamReport::default() };
        proto::Receipt {
            job_id: vec![7; 16],
            boot_id: vec![8; 16],
            user: "me".to_owned(),
            outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
            stdout: Some(report.clone()),
            stderr: Some(report),
            ..proto::Receipt::default()
        }
    }

    /// As a host would sign what it says of another receipt, or the same.
    fn signed(
        told: proto::Receipt,
        stated: &proto::Receipt,
        line: &[u8],
        key: &ReceiptKey,
    ) -> proto::Receipt {
        let signed = key.sign(statement_of(stated, &Command::line(line)).unwrap()).unwrap();
        proto::Receipt { statement: signed.text.into_bytes(), sshsig: signed.sshsig, ..told }
    }

    #[test]
    fn a_signed_receipt_is_kept_as_it_came() {
        let key = key();
        let good = signed(receipt(), &receipt(), b"true", &key);
        let file = check(Some(&key), &good).unwrap().unwrap();
        assert_eq!((file.statement, file.sshsig), (good.statement, Some(good.sshsig)));
        // Nothing was sent: an older host.
        assert_eq!(check(Some(&key), &receipt()).unwrap(), None);
    }

    #[test]
    fn whatever_a_signed_statement_says_else_is_a_contradiction() {
        let key = key();
        let changed = |change: &dyn Fn(&mut proto::Receipt)| {
            let mut receipt = receipt();
            change(&mut receipt);
            receipt
        };
        type Change = (&'static str, Box<dyn Fn(&mut proto::Receipt)>);
        let changes: [Change; 6] = [
            (
                "outcome",
                Box::new(|r| r.outcome = Some(proto::receipt::Outcome::Exited(proto::Exited { status: 1 }))),
            ),
            ("stdout", Box::new(|r| r.stdout.as_mut().unwrap().length = 4)),
            ("stderr", Box::new(|r| r.stderr.as_mut().unwrap().blake3 = vec![2; 32])),
            ("pid", Box::new(|r| r.pid = 9)),
            ("ended-by", Box::new(|r| r.ended_by = proto::EndReason::Stop.into())),
            ("directory", Box::new(|r| r.working_directory = b"/".to_vec())),
        ];
        for (name, change) in changes {
            let bad = signed(receipt(), &changed(&change), b"true", &key);
            match check(Some(&key), &bad) {
                Err(JobError::Contradiction(what)) => {
                    assert_eq!(what, format!("its statement has another {name}"))
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        let bad = signed(receipt(), &receipt(), b"false", &key);
        assert!(
            matches!(check(Some(&key), &bad), Err(JobError::Contradiction(what)) if what.ends_with("line"))
        );
        for change in
            [&(|r: &mut proto::Receipt| r.job_id = vec![9; 16]) as &dyn Fn(&mut proto::Receipt), &|r| {
                r.user = "other".to_owned()
            }]
        {
            let other = changed(change);
            let bad = signed(other.clone(), &other, b"true", &key);
            assert!(matches!(check(Some(&key), &bad), Err(JobError::Contradiction(_))));
        }
    }

    #[test]
    fn a_signature_by_another_key_or_over_another_text_does_not_count() {
        let (ours, theirs) = (key(), key());
        let bad = signed(receipt(), &receipt(), b"true", &theirs);
        assert!(matches!(check(Some(&ours), &bad), Err(JobError::Signature(_))));
        // Nobody has proven to have that key.
        assert!(matches!(check(None, &bad), Err(JobError::Contradiction(_))));
        let mut bad = signed(receipt(), &receipt(), b"true", &ours);
        bad.statement.push(b'\n');
        assert!(matches!(check(Some(&ours), &bad), Err(JobError::Signature(_))));
        bad.statement.clear();
        assert!(matches!(check(Some(&ours), &bad), Err(JobError::Signature(_))));
    }

    #[test]
    fn without_a_host_key_a_receipt_is_unsigned_and_compared_all_the_same() {
        let statement = statement_of(&receipt(), &Command::line(b"true")).unwrap().compose();
        let good = proto::Receipt { statement: statement.clone().into_bytes(), ..receipt() };
        assert_eq!(check(None, &good).unwrap().unwrap().sshsig, None);
        let statement = statement.replace("exited 0", "exited 1").into_bytes();
        let bad = proto::Receipt { statement, ..receipt() };
        assert!(matches!(check(None, &bad), Err(JobError::Contradiction(_))));
    }
}
