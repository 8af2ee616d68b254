//! Messages of the SSH agent protocol (draft-ietf-sshm-ssh-agent), without the socket: what to send, and what an answer says.
//!
//! A frame is a `uint32` length and that many bytes; the caller reads it with [`frame_length`] before it asks for memory.

use crate::encoding::{Malformed, Reader, put_string};
use crate::limits::AGENT_MESSAGE_MAX;
use crate::public_key::{KeyAlgorithm, PublicKey};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Asks for `rsa-sha2-512` instead of SHA-1.
const FLAG_RSA_SHA2_512: u32 = 4;

/// Why an agent's answer can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The agent says no: locked, unknown key, or the user declined.
    #[error("the agent refused")]
    Refused,
    /// A frame beyond [`AGENT_MESSAGE_MAX`] (PITFALLS 12).
    #[error("the agent announces {bytes} bytes; the limit is {AGENT_MESSAGE_MAX}")]
    TooLong {
        /// As the frame says.
        bytes: u32,
    },
    /// The encoding is broken.
    #[error("the agent's answer is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// An answer to another question.
    #[error("the agent answered with message type {0}")]
    UnexpectedType(u8),
}

/// A key that an agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its public half.
    pub key: PublicKey,
    /// What the agent calls it. From a peer: escape it before showing it.
    pub comment: String,
}

/// The keys that an agent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentIdentities {
    /// Those of kinds known here, in the agent's order.
    pub identities: Vec<AgentIdentity>,
    /// How many others there are: certificates, hardware keys.
    pub unsupported: usize,
}

/// The length of the message behind a frame's first four bytes.
///
/// # Errors
/// [`AgentError::TooLong`] beyond [`AGENT_MESSAGE_MAX`], and [`AgentError::Malformed`] for 0.
pub fn frame_length(header: [u8; 4]) -> Result<usize, AgentError> {
    let bytes = u32::from_be_bytes(header);
    match usize::try_from(bytes) {
        Ok(0) => Err(Malformed::Truncated.into()),
        Ok(length) if length <= AGENT_MESSAGE_MAX => Ok(length),
        _ => Err(AgentError::TooLong { bytes }),
    }
}

/// The whole frame that asks for the agent's keys.
pub fn request_identities() -> Vec<u8> {
    frame(&[REQUEST_IDENTITIES])
}

/// The whole frame that asks for `key`'s signature over `data`, in `rsa-sha2-512` if the key is RSA.
pub fn sign_request(key: &PublicKey, data: &[u8]) -> Vec<u8> {
    let flags = match key.algorithm() {
        KeyAlgorithm::Rsa { .. } => FLAG_RSA_SHA2_512,
        _ => 0,
    };
    let mut message = vec![SIGN_REQUEST];
    put_string(&mut message, key.blob());
    put_string(&mut message, data);
    message.extend_from_slice(&flags.to_be_bytes());
    frame(&message)
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + message.len());
    put_string(&mut out, message);
    out
}

/// Reads the answer to [`request_identities`], without its length prefix.
///
/// # Errors
/// [`AgentError`]; the announced number of keys is bounded by the bytes there are (PITFALLS 5).
pub fn decode_identities(message: &[u8]) -> Result<AgentIdentities, AgentError> {
    let mut reader = answer(message, IDENTITIES_ANSWER)?;
    let count = reader.uint32()?;
    let mut found = AgentIdentities::default();
    // Nothing is allocated by this count: each turn takes its eight bytes at least, or ends the loop.
    for _ in 0..count {
        let blob = reader.string()?;
        let comment = reader.string()?;
        match PublicKey::from_blob(blob) {
            Ok(key) => found
                .identities
                .push(AgentIdentity { key, comment: String::from_utf8_lossy(comment).into_owned() }),
            Err(_) => found.unsupported += 1,
        }
    }
    reader.finish()?;
    Ok(found)
}

/// Reads the answer to [`sign_request`], without its length prefix: an SSH signature blob.
///
/// Verify it with [`PublicKey::verify`] before sending it anywhere: an old agent ignores the flag and signs with SHA-1, and the
/// user is better told so here than refused by the host.
///
/// # Errors
/// [`AgentError`], [`AgentError::Refused`] among them.
pub fn decode_signature(message: &[u8]) -> Result<Vec<u8>, AgentError> {
    let mut reader = answer(message, SIGN_RESPONSE)?;
    let signature = reader.string()?;
    reader.finish()?;
    Ok(signature.to_vec())
}

fn answer(message: &[u8], expected: u8) -> Result<Reader<'_>, AgentError> {
    let mut reader = Reader::bounded(message, AGENT_MESSAGE_MAX)?;
    match reader.byte()? {
        FAILURE => Err(AgentError::Refused),
        kind if kind == expected => Ok(reader),
        kind => Err(AgentError::UnexpectedType(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key::tests::ED25519;

    fn identities(blobs: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![IDENTITIES_ANSWER];
        message.extend_from_slice(&(blobs.len() as u32).to_be_bytes());
        for blob in blobs {
            put_string(&mut message, blob);
            put_string(&mut message, b"work \xff laptop");
        }
        message
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_memory_is_asked_for() {
        // PITFALLS 12
        assert_eq!(frame_length(u32::MAX.to_be_bytes()), Err(AgentError::TooLong { bytes: u32::MAX }));
        assert_eq!(frame_length([0, 4, 0, 0]), Ok(AGENT_MESSAGE_MAX));
        assert!(frame_length([0, 4, 0, 1]).is_err() && frame_length([0; 4]).is_err());
    }

    #[test]
    fn keys_of_unknown_kinds_are_counted_and_hide_nothing() {
        let key = PublicKey::from_text(ED25519).unwrap();
        let found = decode_identities(&identities(&[b"\0\0\0\x07ssh-dss", key.blob()])).unwrap();
        assert_eq!((found.identities.len(), found.unsupported), (1, 1));
        assert_eq!(found.identities[0].key, key);
        assert_eq!(found.identities[0].comment, "work \u{fffd} laptop");
    }

    #[test]
    fn a_hostile_count_is_bounded_by_the_bytes_there_are() {
        // PITFALLS 5
        let mut message = identities(&[]);
        message[1..5].copy_from_slice(&0x1000_0000u32.to_be_bytes());
        assert_eq!(decode_identities(&message), Err(Malformed::Truncated.into()));
    }

    #[test]
    fn requests_have_these_bytes() {
        assert_eq!(request_identities(), [0, 0, 0, 1, 11]);
        let key = PublicKey::from_text(ED25519).unwrap();
        let frame = sign_request(&key, b"data");
        assert_eq!(frame_length(frame[..4].try_into().unwrap()).unwrap(), frame.len() - 4);
        assert_eq!(frame[4], 13);
        assert_eq!(frame[frame.len() - 12..], *b"\0\0\0\x04data\0\0\0\0");
    }

    #[test]
    fn an_rsa_key_is_asked_for_sha512_and_never_for_sha1() {
        let material = crate::public_key::Material::Rsa { modulus: vec![0xc1; 256], exponent: vec![1, 0, 1] };
        let key = PublicKey::from_material(material).unwrap();
        assert!(sign_request(&key, b"data").ends_with(b"data\0\0\0\x04"));
    }

    #[test]
    fn refusals_and_answers_to_other_questions_are_told_apart() {
        assert_eq!(decode_signature(&[FAILURE]), Err(AgentError::Refused));
        assert_eq!(decode_signature(&[6]), Err(AgentError::UnexpectedType(6)));
        assert_eq!(decode_signature(&[SIGN_RESPONSE, 0, 0, 0, 1, 9]), Ok(vec![9]));
        assert_eq!(decode_signature(&[SIGN_RESPONSE, 0, 0, 0, 1, 9, 9]), Err(Malformed::Trailing.into()));
    }
}
