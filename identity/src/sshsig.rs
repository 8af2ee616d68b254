//! SSHSIG: a signature over a message in a namespace, as `ssh-keygen -Y sign` makes it (PROTOCOL.sshsig). Binary, never armored.
//!
//! Only version 1 with sha512 is read or written, and a signature counts for one expected key and one namespace only.

use crate::encoding::{Malformed, Reader, put_string};
use crate::limits::SSHSIG_MAX;
use crate::private_key::{CryptoFailure, PrivateKey};
use crate::public_key::{PublicKey, VerifyError};

const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
const HASH: &[u8] = b"sha512";

/// Why an SSHSIG doesn't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SshsigError {
    /// The encoding is broken, or it is no SSHSIG.
    #[error("the SSHSIG is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Another version than 1.
    #[error("version {0} of SSHSIG is not supported")]
    Version(u32),
    /// Made for another purpose.
    #[error("the signature is for another namespace")]
    Namespace,
    /// Another hash than sha512.
    #[error("the signature is over another hash than sha512")]
    Hash,
    /// Made with another key than the one that was asked about (PITFALLS 21).
    #[error("the signature is by another key than the one presented")]
    OtherKey,
    /// The signature inside doesn't verify.
    #[error(transparent)]
    Signature(#[from] VerifyError),
}

/// The bytes that a key signs for `message` in `namespace`. An agent is sent these.
pub fn signed_data(namespace: &str, message: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, message);
    let mut out = Vec::with_capacity(128 + namespace.len());
    out.extend_from_slice(MAGIC);
    put_string(&mut out, namespace.as_bytes());
    put_string(&mut out, b"");
    put_string(&mut out, HASH);
    put_string(&mut out, digest.as_ref());
    out
}

/// A complete SSHSIG from a signature blob over [`signed_data`], such as an agent's answer.
pub fn encode(public: &PublicKey, namespace: &str, signature_blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + public.blob().len() + signature_blob.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_string(&mut out, public.blob());
    put_string(&mut out, namespace.as_bytes());
    put_string(&mut out, b"");
    put_string(&mut out, HASH);
    put_string(&mut out, signature_blob);
    out
}

/// Signs `message` in `namespace` and gives the complete SSHSIG.
///
/// # Errors
/// [`CryptoFailure`] when the cryptographic library fails.
pub fn sign(key: &PrivateKey, namespace: &str, message: &[u8]) -> Result<Vec<u8>, CryptoFailure> {
    let signature = key.sign(&signed_data(namespace, message))?;
    Ok(encode(key.public(), namespace, &signature))
}

/// The key that a signature says it is by. That says nothing yet: [`verify`] does, with a key that is expected.
///
/// # Errors
/// [`SshsigError`] where no key can be read.
pub fn claimed_key(sshsig: &[u8]) -> Result<PublicKey, SshsigError> {
    let mut reader = Reader::bounded(sshsig, SSHSIG_MAX)?;
    if reader.bytes(MAGIC.len())? != MAGIC {
        return Err(Malformed::Unexpected("magic").into());
    }
    let version = reader.uint32()?;
    if version != VERSION {
        return Err(SshsigError::Version(version));
    }
    PublicKey::from_blob(reader.string()?).map_err(|_| Malformed::Unexpected("key").into())
}

/// Verifies that `sshsig` is `expected`'s signature over `message` in `namespace`.
///
/// # Errors
/// [`SshsigError`] otherwise, also for bytes behind the signature or in its reserved field.
pub fn verify(
    sshsig: &[u8],
    expected: &PublicKey,
    namespace: &str,
    message: &[u8],
) -> Result<(), SshsigError> {
    let mut reader = Reader::bounded(sshsig, SSHSIG_MAX)?;
    if reader.bytes(MAGIC.len())? != MAGIC {
        return Err(Malformed::Unexpected("magic").into());
    }
    let version = reader.uint32()?;
    if version != VERSION {
        return Err(SshsigError::Version(version));
    }
    let key = reader.string()?;
    let signed_namespace = reader.string()?;
    let reserved = reader.string()?;
    let hash = reader.string()?;
    let signature = reader.string()?;
    reader.finish()?;

    if key != expected.blob() {
        return Err(SshsigError::OtherKey);
    }
    if signed_namespace != namespace.as_bytes() {
        return Err(SshsigError::Namespace);
    }
    if !reserved.is_empty() {
        return Err(Malformed::Unexpected("reserved field").into());
    }
    if hash != HASH {
        return Err(SshsigError::Hash);
    }
    expected.verify(signature, &signed_data(namespace, message))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate_ed25519().unwrap();
        let sshsig = sign(&key, "test-v1", b"message").unwrap();
        (key, sshsig)
    }

    #[test]
    fn a_signature_counts_for_its_key_namespace_and_message_only() {
        let (key, sshsig) = signed();
        let other = PrivateKey::generate_ed25519().unwrap();
        assert_eq!(verify(&sshsig, key.public(), "test-v1", b"message"), Ok(()));
        assert_eq!(verify(&sshsig, other.public(), "test-v1", b"message"), Err(SshsigError::OtherKey));
        assert_eq!(verify(&sshsig, key.public(), "test-v2", b"message"), Err(SshsigError::Namespace));
        assert_eq!(
            verify(&sshsig, key.public(), "test-v1", b"massage"),
            Err(SshsigError::Signature(VerifyError::BadSignature))
        );
    }

    #[test]
    fn a_namespace_rewritten_in_the_envelope_does_not_verify() {
        let (key, _) = signed();
        let signature = key.sign(&signed_data("file", b"message")).unwrap();
        let forged = encode(key.public(), "test-v1", &signature);
        assert_eq!(
            verify(&forged, key.public(), "test-v1", b"message"),
            Err(SshsigError::Signature(VerifyError::BadSignature))
        );
    }

    #[test]
    fn another_version_or_hash_is_refused() {
        let (key, sshsig) = signed();
        let mut version = sshsig.clone();
        version[9] = 2;
        assert_eq!(verify(&version, key.public(), "test-v1", b"message"), Err(SshsigError::Version(2)));
        let at = sshsig.windows(6).position(|window| window == HASH).unwrap();
        let mut hash = sshsig.clone();
        hash[at..at + 6].copy_from_slice(b"sha256");
        assert_eq!(verify(&hash, key.public(), "test-v1", b"message"), Err(SshsigError::Hash));
    }

    #[test]
    fn a_reserved_field_with_content_is_refused() {
        // It isn't signed, so whatever stands there would be anybody's.
        let (key, sshsig) = signed();
        let at = sshsig.windows(6).position(|window| window == HASH).unwrap() - 8;
        let mut reserved = sshsig.clone();
        reserved.splice(at..at + 4, *b"\0\0\0\x01x");
        assert_eq!(
            verify(&reserved, key.public(), "test-v1", b"message"),
            Err(Malformed::Unexpected("reserved field").into())
        );
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let (key, sshsig) = signed();
        for length in 0..sshsig.len() {
            assert!(verify(&sshsig[..length], key.public(), "test-v1", b"message").is_err());
        }
        for bit in 0..sshsig.len() * 8 {
            let mut flipped = sshsig.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&flipped, key.public(), "test-v1", b"message").is_err(), "bit {bit}");
        }
        let mut longer = sshsig;
        longer.push(0);
        assert!(verify(&longer, key.public(), "test-v1", b"message").is_err());
    }
}
