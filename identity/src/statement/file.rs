//! A receipt as a file: the statement, and behind it the signature in the armor that `ssh-keygen -Y` reads.

use base64ct::{Base64, Encoding as _};

use crate::limits::{RECEIPT_FILE_MAX, SSHSIG_MAX};

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";
/// Where ssh-keygen breaks its lines.
const COLUMNS: usize = 70;

/// What a receipt's file holds, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptFile {
    /// The statement's bytes.
    pub statement: Vec<u8>,
    /// The binary SSHSIG, where there is one.
    pub sshsig: Option<Vec<u8>>,
}

/// Why a file is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptFileError {
    /// Longer than any receipt.
    #[error("it is longer than any receipt")]
    TooLong,
    /// The signature isn't armored as it should be, or is cut, or something stands behind it.
    #[error("its signature is damaged")]
    Armor,
}

impl ReceiptFile {
    /// The text of the file.
    pub fn compose(&self) -> Vec<u8> {
        let mut file = self.statement.clone();
        let Some(sshsig) = &self.sshsig else { return file };
        file.extend_from_slice(BEGIN.as_bytes());
        for line in Base64::encode_string(sshsig).as_bytes().chunks(COLUMNS) {
            file.extend_from_slice(line);
            file.push(b'\n');
        }
        file.extend_from_slice(END.as_bytes());
        file
    }

    /// Takes a file apart.
    ///
    /// # Errors
    /// [`ReceiptFileError`].
    pub fn parse(file: &[u8]) -> Result<Self, ReceiptFileError> {
        if file.len() > RECEIPT_FILE_MAX {
            return Err(ReceiptFileError::TooLong);
        }
        // No line of a statement begins with a dash.
        let begin = [b"\n", BEGIN.as_bytes()].concat();
        let Some(at) = file.windows(begin.len()).position(|window| window == begin) else {
            return Ok(ReceiptFile { statement: file.to_vec(), sshsig: None });
        };
        let (statement, armored) = file.split_at_checked(at + 1).ok_or(ReceiptFileError::Armor)?;
        let armored = str::from_utf8(armored).map_err(|_| ReceiptFileError::Armor)?;
        let base64: String = armored
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or(ReceiptFileError::Armor)?
            .split('\n')
            .collect();
        let sshsig = Base64::decode_vec(&base64).map_err(|_| ReceiptFileError::Armor)?;
        if sshsig.len() > SSHSIG_MAX {
            return Err(ReceiptFileError::Armor);
        }
        Ok(ReceiptFile { statement: statement.to_vec(), sshsig: Some(sshsig) })
    }
}
